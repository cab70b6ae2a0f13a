#!/usr/bin/env bash
# Tests start PostgreSQL servers of their own, from Debian's package.
set -euo pipefail
. "$(dirname "$0")/packages.sh"
shopt -s nullglob
servers=(/usr/lib/postgresql/*/bin/postgres)
[ ${#servers[@]} -gt 0 ] || need postgres postgresql "a store can be in PostgreSQL"

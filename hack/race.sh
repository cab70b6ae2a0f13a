#!/usr/bin/env bash
# The race detector needs a C compiler and the C library's headers.
set -euo pipefail
. "$(dirname "$0")/packages.sh"
need gcc gcc "the race detector is linked by it"
[ -e /usr/include/stdlib.h ] || apt_install libc6-dev >/dev/null

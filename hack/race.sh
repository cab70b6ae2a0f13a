#!/usr/bin/env bash
# The race detector needs a C compiler and the C library's headers.
set -euo pipefail
. "$(dirname "$0")/packages.sh"
need gcc gcc "the race detector is linked by it"
[ -e /usr/include/stdlib.h ] || DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends libc6-dev >/dev/null

#!/usr/bin/env bash
# Sees to it that this machine's own Python has Dask from Debian's packages, as a
# user's would: the tests of Dask clusters have it as their client.
set -euo pipefail
cd "$(dirname "$0")/.."
. hack/packages.sh
has() { /usr/bin/python3 -c 'import distributed, pandas' >/dev/null 2>&1; }
need openssl openssl "certificates of tests of the Python programs"
has || need /usr/bin/berth-no-such python3-distributed "the client of Dask clusters in tests"
has || need /usr/bin/berth-no-such python3-pandas "dataframes of the client of Dask clusters in tests"

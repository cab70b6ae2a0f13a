#!/usr/bin/env bash
# Runs the end-to-end tests: on the cluster that BERTH_E2E_KUBECONFIG names, or
# on one that is brought up for them and taken down after them.
# Usage: hack/e2e.sh [go test flags], such as -run TestQuota
set -euo pipefail
cd "$(dirname "$0")/.."
. hack/packages.sh
need dockerd docker.io "a Docker Engine is the second kind of infrastructure, and a builder"
bash hack/postgres.sh
hack/juicefs.sh > /dev/null
need busybox busybox-static "a program for its images"
hack/dask-client.sh
BERTH_E2E_BASE=${BERTH_E2E_BASE:-$(hack/base-image.sh)}
export BERTH_E2E_BASE
if [ -z "${BERTH_E2E_KUBECONFIG:-}" ]; then
  name=${BERTH_E2E_CLUSTER:-e2e}
  keep=${BERTH_E2E_KEEP:-}
  down() { [ -n "$keep" ] || bin/localkube down --name "$name"; }
  trap down EXIT
  trap 'exit 130' INT TERM
  bin/localkube up --name "$name" --max-pods 250 --with metrics
  BERTH_E2E_KUBECONFIG="$PWD/.localkube/$name/kubeconfig"
  export BERTH_E2E_STATE="$PWD/.localkube/$name"
  export BERTH_E2E_KUBECONFIG
fi
# Beside an admin kubeconfig of localkube lie its audit log, its registries' settings and its host's address.
export BERTH_E2E_STATE="${BERTH_E2E_STATE:-$(dirname "$BERTH_E2E_KUBECONFIG")}"
# go test shows what packages print only where they fail: the counts of causes and of requests go into a file.
BERTH_E2E_REPORT=$(mktemp)
export BERTH_E2E_REPORT
code=0
# One package after the other: tests stop nodes and the API server. Those that may
# run beside others do so at the end of theirs, and are more than there are processors:
# they mostly wait. The limit is for what hangs: on two cores that others slow down
# all of it takes 45 to 55 minutes.
go test -tags e2e -count=1 -timeout 75m -p 1 -parallel 3 ./test/e2e/... ./test/cli/... "$@" || code=$?
cat "$BERTH_E2E_REPORT"
rm -f "$BERTH_E2E_REPORT"
exit $code

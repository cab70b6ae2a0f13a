#!/usr/bin/env bash
# The chaos suite in its long form, on a cluster of its own: 5,000 tasks while
# everything around them breaks. The ledger's counts are printed at the end.
#   BERTH_CHAOS_TASKS=500 BERTH_CHAOS_KILLS=20 make chaos    a shorter one; see docs/chaos.md
# Usage: hack/chaos.sh [go test flags]
set -euo pipefail
cd "$(dirname "$0")/.."
hack/postgres.sh
export BERTH_CHAOS_TASKS=${BERTH_CHAOS_TASKS:-5000} BERTH_CHAOS_KILLS=${BERTH_CHAOS_KILLS:-60} BERTH_CHAOS_RESTARTS=${BERTH_CHAOS_RESTARTS:-12}
export BERTH_CHAOS_FAULTS=${BERTH_CHAOS_FAULTS:-99} BERTH_CHAOS_AT_ONCE=${BERTH_CHAOS_AT_ONCE:-60} BERTH_CHAOS_MINUTES=${BERTH_CHAOS_MINUTES:-120}
if [ -z "${BERTH_E2E_KUBECONFIG:-}" ]; then
  name=chaos-long
  down() { bin/localkube down --name "$name"; }
  trap down EXIT
  trap 'exit 130' INT TERM
  bin/localkube up --name "$name" --max-pods 250
  export BERTH_E2E_KUBECONFIG="$PWD/.localkube/$name/kubeconfig"
fi
export BERTH_E2E_STATE="${BERTH_E2E_STATE:-$(dirname "$BERTH_E2E_KUBECONFIG")}"
go test -tags e2e -count=1 -timeout $((BERTH_CHAOS_MINUTES + 30))m -v ./test/e2e/chaos/ "$@" 2>&1 | grep --line-buffered -v '^=== '

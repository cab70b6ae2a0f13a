#!/usr/bin/env bash
# Measures Berth against a bare client-go loop, in one run against the same API
# servers: throughput, many live tasks and long queues on simulated
# nodes, added latency on a real kubelet.
set -euo pipefail
cd "$(dirname "$0")/.."
down() { bin/localkube down --name bench-kwok; bin/localkube down --name bench; }
trap down EXIT
trap 'exit 130' INT TERM
hack/postgres.sh
bin/localkube up --name bench-kwok --control-plane-only --kwok-nodes 20
CGO_ENABLED=0 go run ./test/bench throughput --kubeconfig .localkube/bench-kwok/kubeconfig "$@"
CGO_ENABLED=0 go run ./test/bench workflow --kubeconfig .localkube/bench-kwok/kubeconfig
CGO_ENABLED=0 go run ./test/bench replay --kubeconfig .localkube/bench-kwok/kubeconfig --berth bin/berth --tasks 10000
CGO_ENABLED=0 go run ./test/bench cluster --kubeconfig .localkube/bench-kwok/kubeconfig --tasks 100
CGO_ENABLED=0 go run ./test/bench live --kubeconfig .localkube/bench-kwok/kubeconfig --berth bin/berth --tasks "${BENCH_LIVE:-10000}"
CGO_ENABLED=0 go run ./test/bench queue --kubeconfig .localkube/bench-kwok/kubeconfig --berth bin/berth --tasks "${BENCH_QUEUE:-1000000}"
bin/localkube down --name bench-kwok
CGO_ENABLED=0 go run ./test/bench fleet --berth bin/berth --tasks 10
CGO_ENABLED=0 go run ./test/bench proxy --berthlet bin/berthlet
bin/localkube up --name bench --max-pods 250
CGO_ENABLED=0 go run ./test/bench latency --kubeconfig .localkube/bench/kubeconfig --berth bin/berth
CGO_ENABLED=0 go run ./test/bench functions --kubeconfig .localkube/bench/kubeconfig --berth bin/berth --base "rootfs:$(hack/base-image.sh)"
# Shared files, by the tests' own Redis and JuiceFS; tunnels to Dask clusters.
hack/dask-client.sh
BERTH_E2E_MEASURE=1 BERTH_E2E_KUBECONFIG=$PWD/.localkube/bench/kubeconfig BERTH_E2E_STATE=$PWD/.localkube/bench BERTH_E2E_BASE=$(hack/base-image.sh) \
  go test -tags e2e -count=1 -timeout 30m -v -run 'TestDFSMeasured|TestDaskTunnelMeasured' ./test/e2e/ | grep -E 'ratio|MB/s|medians|^--- '

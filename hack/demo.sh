#!/usr/bin/env bash
# From nothing to a task, a function and a workflow on a real cluster, through
# kubeconfigs that may do just what Berth needs. BERTH_E2E_KUBECONFIG names a cluster of
# localkube to use instead.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD
began=$SECONDS
bold='' blue='' plain=''
[ -t 1 ] && bold=$'\033[1m' blue=$'\033[36m' plain=$'\033[0m'
step() { printf '\n%s== %s%s (%ds)\n' "$bold" "$1" "$plain" $((SECONDS - began)); }
# typed shows a command as a person would type it; show runs it then.
typed() {
  local word line='$'
  for word in "$@"; do
    case $word in *[!A-Za-z0-9_./:=@,-]*) line+=" '$word'" ;; *) line+=" $word" ;; esac
  done
  printf '%s%s%s\n' "$blue" "$line" "$plain" >&2
}
show() { typed "$@"; "$@"; }

step "Building berth and localkube"
make --no-print-directory build
base=$(hack/base-image.sh)

if [ -n "${BERTH_E2E_KUBECONFIG:-}" ]; then
  admin=$BERTH_E2E_KUBECONFIG
  step "Using the cluster of $admin"
else
  step "Bringing up a real Kubernetes (etcd, API server, kubelet, containerd ...)"
  bin/localkube up
  admin=.localkube/default/kubeconfig
fi

work=.localkube/demo
mkdir -p "$work"
export PATH="$PWD/bin:$PATH" KUBECONFIG="$PWD/$admin"
case $admin in /*) KUBECONFIG=$admin ;; esac
state=$(dirname "$KUBECONFIG") # of the cluster
cd "$work"
rm -rf kubeconfig kubeconfig-2 infra.yml .berth server token
image=docker.io/library/busybox:1.35

step "A namespace, and a kubeconfig that may run tasks in it and nothing else"
show berth create-kubeconfig --namespace berth-demo --profile functions -o kubeconfig
administrator=$KUBECONFIG
unset KUBECONFIG # from here on only the restricted one is used
show berth infra add demo --kubeconfig kubeconfig
show berth infra check demo

step "A task: its output and its exit code are the program's own"
show berth run "$image" sh -c 'echo "Hello from $(hostname), a pod on a real cluster"; uname -sr'
echo "exit code $?"

step "Three tasks that fail, and say why"
printf '    grace: {start_timeout: 6s, pull_grace: 3s} # so that the demo does not wait for minutes\n' >> infra.yml
declare -A failures=()
fails() { # runs a task beside the others, to be told later
  local name=$1; shift
  "$@" > "$name.out" 2>&1 &
  failures[$name]=$!
}
told() { # shows how it failed
  local name=$1 code=0; shift
  wait "${failures[$name]}" || code=$?
  typed "$@"
  grep -v ' launching on ' "$name.out" || true
  printf 'exit code %d\n\n' "$code"
}
misspelt=(berth run --name misspelt "${image/busybox/busybocks}" true)
large=(berth run --memory 4Ti "$image" true)
greedy=(berth run --memory 24Mi "$image" tail /dev/zero)
fails misspelt "${misspelt[@]}"
fails large "${large[@]}"
fails greedy "${greedy[@]}"
told greedy "${greedy[@]}"
told misspelt "${misspelt[@]}"
told large "${large[@]}"
show berth task explain "$(berth task list --name misspelt --limit 1 -o json | sed -n 's/^ *"id": "\(.*\)",$/\1/p' | head -1)"
sed -i '/grace:/d' infra.yml

step "A server: its registry, which the cluster pulls from, and callbacks, which bring results"
host=$(cat "$state/host-ip") # where pods reach this machine
printf '    registry: %s:7070\n    callback_to: %s:7070\n' "$host" "$host" >> infra.yml
serve=(berth server --listen "$host:7070" --data server)
typed "${serve[@]}"
"${serve[@]}" 2> server.log & # not by show: the process to be ended is berth's own
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true' EXIT
until grep -q 'serving https' server.log; do
  kill -0 "$server" || { cat server.log >&2; exit 1; }
  sleep 0.1
done
show berth server token create me --data server --role admin > token
export BERTH_TOKEN_FILE=$PWD/token BERTH_CA_FILE=$PWD/server/ca.pem
# Nodes have to trust the server's certificate, as they would a real registry's.
mkdir -p "$state/certs.d/$host:7070"
printf 'server = "https://%s:7070"\n[host."https://%s:7070"]\n  ca = "%s"\n' "$host" "$host" "$BERTH_CA_FILE" > "$state/certs.d/$host:7070/hosts.toml"

step "A package: Python code, built into an image here, without Docker"
show berth package build "$top/examples/arithmetic-python" --base "rootfs:$base"

step "Pushed to the server, and called on the cluster"
show berth package push arithmetic-python "https://$host:7070"
export BERTH_SERVER=https://$host:7070
show berth package inspect arithmetic-python
show berth call arithmetic-python add a=2 b=3
unset BERTH_SERVER

step "A second infrastructure: another namespace, with a kubeconfig of its own"
KUBECONFIG=$administrator show berth create-kubeconfig --namespace berth-demo-2 -o kubeconfig-2
show berth infra add demo-2 --kubeconfig kubeconfig-2

step "A workflow over both: functions on one, at the same time, and a plain task on the other"
cat > workflow.star <<EOF
arithmetic = package("arithmetic-python")

def main(numbers = [1, 2, 3]):
    sums = arithmetic.add.map(a = numbers, b = 10, on = "demo")
    text = " ".join([str(n) for n in sums])
    return run("$image", ["echo", "the sums are", text], on = "demo-2")["output"].strip()
EOF
show cat workflow.star
export BERTH_SERVER=https://$host:7070
show berth workflow run workflow.star
show berth workflow list
unset BERTH_SERVER

step "Done. Commands to try next, in $work"
cat <<EOF
  cd $work && export PATH="$top/bin:\$PATH"
  berth run --cpu 500m --memory 64Mi $image sh -c 'for i in 1 2 3; do echo \$i; sleep 1; done'
  berth task list
  berth run ${image/busybox/busybxo} true
  berth workflow run $top/examples/workflows/failing.star
  berth server --listen $host:7070 --data server &
  BERTH_SERVER=https://$host:7070 BERTH_TOKEN_FILE=token BERTH_CA_FILE=server/ca.pem berth call arithmetic-python divide a=7 b=2
EOF
[ -n "${BERTH_E2E_KUBECONFIG:-}" ] || echo "The cluster goes on running: make cluster-down takes it down."

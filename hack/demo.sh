#!/usr/bin/env bash
# From nothing to a task on a real cluster, through a kubeconfig that may do
# just what Berth needs. BERTH_E2E_KUBECONFIG names a cluster to use instead.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD
began=$SECONDS
bold='' blue='' plain=''
[ -t 1 ] && bold=$'\033[1m' blue=$'\033[36m' plain=$'\033[0m'
step() { printf '\n%s== %s%s (%ds)\n' "$bold" "$1" "$plain" $((SECONDS - began)); }
# show runs a command after showing it as a person would type it.
show() {
  local word line='$'
  for word in "$@"; do
    case $word in *[!A-Za-z0-9_./:=@,-]*) line+=" '$word'" ;; *) line+=" $word" ;; esac
  done
  printf '%s%s%s\n' "$blue" "$line" "$plain" >&2
  "$@"
}

step "Building berth and localkube"
make --no-print-directory build

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
cd "$work"
rm -rf kubeconfig infra.yml .berth
image=docker.io/library/busybox:1.35

step "A namespace, and a kubeconfig that may run tasks in it and nothing else"
show berth create-kubeconfig --namespace berth-demo -o kubeconfig
unset KUBECONFIG # from here on only the restricted one is used
show berth infra add demo --kubeconfig kubeconfig
show berth infra check demo

step "A task: its output and its exit code are the program's own"
show berth run "$image" sh -c 'echo "Hello from $(hostname), a pod on a real cluster"; uname -sr'
echo "exit code $?"

step "A task that cannot start says why"
id=$(show berth run --name too-big --memory 4Ti --detach "$image" true)
echo "$id"
show berth task explain "$id"
show berth task cancel "$id"

step "Done. Three commands to try next, in $work"
cat <<EOF
  cd $work && export PATH="$top/bin:\$PATH"
  berth run --cpu 500m --memory 64Mi $image sh -c 'for i in 1 2 3; do echo \$i; sleep 1; done'
  berth task list
  berth run ${image/busybox/busybxo} true
EOF
[ -n "${BERTH_E2E_KUBECONFIG:-}" ] || echo "The cluster goes on running: make cluster-down takes it down."

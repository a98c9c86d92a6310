#!/bin/bash
# First process of a cluster's namespaces (cluster.sh starts it): node.sh [CMD...]
# Brings the cluster up, then runs CMD and ends with it, or stays.
set -euo pipefail
exec 9>&- # the lock is the holder's, outside
here=$(cd "$(dirname "$0")" && pwd)
dir=$CLUSTER_DIR log=$CLUSTER_DIR/log
node=node-1 node_ip=10.89.0.2
export PATH=$KUBE_BIN:$PATH KUBECONFIG=$dir/admin.kubeconfig KUBECACHEDIR=$dir/kubectl-cache
trap 'exit 143' INT TERM # a first process has no default handlers

find "$log" -name '*.log' ! -name node.log -delete
mkdir -p "$dir"/{pki,config/cni,etcd,containerd,kubelet,volumes}

microseconds() { echo "${EPOCHREALTIME//[^0-9]/}"; }
started=$(microseconds)
say() { # TEXT, with the seconds since the start
    local passed=$(($(microseconds) - started))
    printf '%3d.%02d s  %s\n' $((passed / 1000000)) $((passed / 10000 % 100)) "$*" >&2
}
declare -A components=()
start() { # NAME COMMAND...: in the background, output to a log of that name
    local name=$1
    shift
    "$@" </dev/null >"$log/$name.log" 2>&1 &
    components[$name]=$!
}
give_up() { # SENTENCE
    echo "$1; ends of the logs:" >&2
    find "$log" -name '*.log' ! -name audit.log ! -name node.log -size +0 -exec tail -v -n 8 {} + | cut -c1-400 >&2
    exit 1
}
await() { # WHAT COMMAND...: until it succeeds, two minutes at most
    local what=$1 name
    shift
    for ((SECONDS = 0; SECONDS < 120; )); do
        if "$@" >/dev/null 2>&1; then say "$what"; return; fi
        for name in "${!components[@]}"; do
            kill -0 "${components[$name]}" 2>/dev/null || give_up "$name ended while waiting for: $what"
        done
        sleep 0.1
    done
    give_up "two minutes without: $what"
}

# shellcheck source=tests/cluster/node/isolation.sh
. "$here/node/isolation.sh"
# shellcheck source=tests/cluster/node/identities.sh
. "$here/node/identities.sh"
# shellcheck source=tests/cluster/node/control-plane.sh
. "$here/node/control-plane.sh"
# shellcheck source=tests/cluster/node/worker.sh
. "$here/node/worker.sh"

isolate
make_identities
say "network, folders, certificates"
start_control_plane
start_containerd
await containerd ctr images list
import_images
say "images"
await "API server" kubectl get --raw /readyz
start_kubelet
start_proxy
await "default service account" kubectl get serviceaccount default
start_kwok
await "node Ready" kubectl wait --for=condition=Ready "node/$node" --timeout=1s
touch "$dir/ready"

if [ $# -gt 0 ]; then
    status=0
    "$@" || status=$?
    if [ $status != 0 ]; then
        echo "--- $1 ended with $status; the cluster at that time (all logs: $log):" >&2
        { kubectl get pods --all-namespaces -o wide
          kubectl get events --all-namespaces --sort-by=.lastTimestamp | tail -n 25; } >&2 || true
    fi
    exit $status # the kernel ends everything else
fi
while :; do sleep 3600 & wait $!; done # and reap orphans

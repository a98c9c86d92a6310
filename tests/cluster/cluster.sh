#!/bin/bash
# A real one-node Kubernetes cluster in namespaces of its own. See README.md.
#
#   cluster.sh run CMD...        fresh cluster, run CMD inside it, tear all down
#   cluster.sh up                fresh cluster, left running (already up: says so)
#   cluster.sh exec CMD...       run CMD inside the running cluster
#   cluster.sh expose            let this machine reach its API server, Services and pods
#   cluster.sh load IMAGE.tar... import images into the running cluster
#   cluster.sh volume NAME       a PersistentVolume on a folder of this machine
#   cluster.sh logs [COMPONENT]  ends of all logs, or one log whole
#   cluster.sh down              end it; only the logs stay
#
# Settings, from the environment: CLUSTER_DIR, all its state (one cluster each);
# KUBE_BIN, what build.sh built; IMAGES, archives to load before it is ready;
# KWOK, the program that plays nodes which tests make up (build-tools.sh).
#
# Everything runs in a process, mount and network namespace of its own: when
# its first process ends, the kernel ends all the rest, and no interface, route,
# firewall rule or mount is left. Empty cgroup folders are swept here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/vlm-operator
export KUBE_BIN=${KUBE_BIN:-$cache/kube/bin} PATH=$PATH:/usr/sbin:/sbin
export IMAGES="$cache/images/pause.tar ${IMAGES:-}"
dir=${CLUSTER_DIR:-$cache/cluster}
mkdir -p "$dir/log"
dir=$(cd "$dir" && pwd)
export CLUSTER_DIR=$dir
cgroup=vlm-cluster-$(printf %s "$dir" | sha256sum | head -c 8)
export CLUSTER_CGROUP=$cgroup

fail() { echo "cluster.sh: $*" >&2; exit 1; }
alive() { ! flock --nonblock "$dir/lock" true 2>/dev/null; }
first_process() { pgrep -P "$(cat "$dir/outer.pid")"; }
need_alive() { alive || fail "no cluster runs in $dir; start it with: cluster.sh up"; }
enter() { # run a command inside, with the caller's working folder
    nsenter --target "$(first_process)" --mount --net --uts --ipc --pid --wdns="$PWD" \
        env PATH="$KUBE_BIN:$PATH" KUBECONFIG="$dir/admin.kubeconfig" KUBECACHEDIR="$dir/kubectl-cache" "$@"
}

# Replaces this (sub)shell by the process that holds the namespaces and, as long
# as it lives, the lock. --kill-child: its death is the death of all.
hold() { # WRAPPER... -- [CMD...]
    local wrapper=()
    while [ "$1" != -- ]; do wrapper+=("$1"); shift; done
    shift
    exec 9>"$dir/lock"
    flock --nonblock 9 || fail "another cluster runs in $dir; end it with: cluster.sh down"
    echo $BASHPID >"$dir/outer.pid"
    clean
    exec "${wrapper[@]}" unshare --mount --net --uts --ipc --pid --fork --kill-child=SIGKILL --mount-proc \
        --propagation private "$here/node.sh" "$@"
}
# Nothing of the caller's (locks, pipes of make) may live as long as the cluster.
close_inherited() {
    local fd
    for fd in /proc/self/fd/*; do
        fd=${fd##*/}
        [ "$fd" -le 2 ] || [ "$fd" = 255 ] || eval "exec $fd>&-"
    done
}
# Removes what an ended cluster may have left: cgroup folders, data. The logs stay.
clean() {
    local folders _
    for _ in $(seq 100); do # busy until the last process is reaped
        folders=$(find /sys/fs/cgroup -maxdepth 2 -type d -name "$cgroup")
        [ -n "$folders" ] || break
        # shellcheck disable=SC2086 # several folders, no spaces
        find $folders -depth -type d -exec rmdir {} + 2>/dev/null || true
        sleep 0.05
    done
    [ -z "$folders" ] || echo "cluster.sh: could not remove ${folders//$'\n'/ }" >&2
    rm -rf "$dir"/{ready,pki,config,etcd,containerd,kubelet,volumes,kubectl-cache,admin.kubeconfig}
}
end() { # kill the first process and wait: its holder goes last
    local first
    if first=$(first_process 2>/dev/null); then kill -KILL "$first"; else kill -KILL "$(cat "$dir/outer.pid")"; fi
    flock --timeout 20 "$dir/lock" true || fail "the cluster in $dir does not end"
}

verb=${1:-}
shift || true
case $verb in
run)
    [ $# -gt 0 ] || fail "run: which command?"
    # pdeathsig: also a SIGKILL of this script ends the cluster
    ( hold setpriv --pdeathsig KILL -- "$@" ) <&0 &
    outer=$!
    trap end INT TERM HUP
    status=0
    wait $outer || status=$?
    while kill -0 $outer 2>/dev/null; do status=0; wait $outer || status=$?; done # a signal cut the wait short
    ! alive || exit $status # the lock was another's
    clean
    exit $status ;;
up)
    if alive; then
        [ -e "$dir/ready" ] || fail "a cluster is starting in $dir"
        echo "the cluster in $dir is up already"
        exit 0
    fi
    ( close_inherited; hold setsid -- ) </dev/null >"$dir/log/node.log" 2>&1 &
    outer=$!
    trap 'end; clean; exit 130' INT TERM
    until [ -e "$dir/ready" ]; do
        kill -0 $outer 2>/dev/null || { cat "$dir/log/node.log" >&2; clean; fail "it did not come up; logs: $dir/log"; }
        sleep 0.05
    done
    cat "$dir/log/node.log" ;;
exec) need_alive; enter "$@" ;;
load)
    need_alive
    for image in "$@"; do enter ctr --namespace k8s.io images import --digests=false "$(realpath "$image")"; done ;;
expose) need_alive; "$here/expose.sh" "$(first_process)" ;;
volume)
    [ -n "${1:-}" ] || fail "volume: which name?"
    need_alive
    install -d -m 0777 "$dir/volumes/$1" # pods run as any user, and write to it
    sed "s|NAME|$1|; s|FOLDER|$dir/volumes/$1|" "$here/volume.yaml" | enter kubectl apply -f -
    if [ "$(enter kubectl get persistentvolume "$1" -o 'jsonpath={.status.phase}')" = Released ]; then
        enter kubectl patch persistentvolume "$1" --type=json -p '[{"op":"remove","path":"/spec/claimRef"}]'
    fi ;;
logs)
    if [ $# -gt 0 ]; then cat "$dir/log/$1.log"; else tail -v -n 20 "$dir"/log/*.log | cut -c1-400; fi ;;
down)
    if alive; then end; fi
    clean
    rm -f "$dir/outer.pid"
    echo "the cluster in $dir is gone; its logs stay in $dir/log" ;;
*) sed -n '3,11s/^# \{0,1\}//p' "$0"; [ -z "$verb" ] || exit 2 ;;
esac

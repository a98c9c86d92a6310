#!/bin/bash
# Tests the local cluster itself: two side by side, a fresh one after each kind of
# end, and after every end the machine as it was before. About half a minute.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
export PATH=${KUBE_BIN:-${XDG_CACHE_HOME:-$HOME/.cache}/vlm-operator/kube/bin}:$PATH:/usr/sbin:/sbin

fail() { echo "check.sh: $*" >&2; exit 1; }
in_dir() { CLUSTER_DIR=$work/$1 "$here/cluster.sh" "${@:2}"; }
trap 'in_dir a down; in_dir b down; rm -rf "$work"' EXIT
processes() { # of our two clusters: they all have CLUSTER_DIR in their environment
    local file
    for file in /proc/[0-9]*/environ; do
        if { tr '\0' '\n' <"$file"; } 2>/dev/null | grep -q "^CLUSTER_DIR=$work/[ab]\$"; then echo "process $file"; fi
    done
}
traces() {
    local name
    processes
    mount
    ip -oneline link | cut -d: -f2 | grep -e vlm -e veth -e cni || true
    ip route
    for name in a b; do
        find /sys/fs/cgroup -type d -name "vlm-cluster-$(printf %s "$work/$name" | sha256sum | head -c 8)"
    done
    iptables-save 2>/dev/null | grep -v '^[#:]' || true
    cat /proc/sys/vm/overcommit_memory /proc/sys/kernel/panic /proc/sys/net/ipv4/ip_forward
}
as_before() { # WHAT HAPPENED
    local _
    for _ in $(seq 60); do
        traces >"$work/after"
        if cmp -s "$work/before" "$work/after"; then echo "ok: no trace after $1"; return; fi
        sleep 0.25
    done
    diff "$work/before" "$work/after" || fail "the machine is not as it was before $1"
}
traces >"$work/before"

in_dir a up 2>/dev/null &
in_dir b up 2>/dev/null
wait $! || fail "two clusters did not come up side by side"
in_dir a exec kubectl create namespace only-here >/dev/null
! in_dir b exec kubectl get namespace only-here >/dev/null 2>&1 || fail "two clusters share their state"
in_dir a exec kubectl get node -o name | grep -q node/node-1 || fail "exec does not work"
grep -q '"verb":"create".*"name":"only-here"' "$work/a/log/audit.log" || fail "the audit log lacks a write"
if ip link show vlm-cluster >/dev/null 2>&1; then
    echo "not tested: expose (another cluster is exposed)"
else
    in_dir b expose >/dev/null
    in_dir b expose >/dev/null || fail "expose does not work twice"
    KUBECACHEDIR=$work/cache kubectl --kubeconfig "$work/b/admin.kubeconfig" get --raw /readyz >/dev/null ||
        fail "the API server of an exposed cluster cannot be reached"
fi
if in_dir a run true 2>/dev/null; then fail "run took over a running cluster"; fi
kill -KILL "$(cat "$work/a/outer.pid")" # as a machine short of memory would
in_dir a down >/dev/null
in_dir b down >/dev/null
as_before "up, SIGKILL and down"

if in_dir a run sh -c 'kubectl get namespace kube-system && exit 7' >/dev/null 2>&1; then fail "run hides a failure"
else [ $? = 7 ] || fail "run does not end as its command does"; fi
as_before "a failed run"

in_dir a run sh -c "touch $work/inside; sleep 600" 2>/dev/null &
run=$!
for _ in $(seq 240); do [ ! -e "$work/inside" ] || break; sleep 0.25; done
kill -KILL "$(pgrep -P $run || echo $run)" 2>/dev/null || true
wait $run 2>/dev/null || true
for _ in $(seq 40); do [ -n "$(processes)" ] || break; sleep 0.25; done
[ -z "$(processes)" ] || fail "processes outlive a SIGKILL of the outer one"
in_dir a down >/dev/null
as_before "a run ended by SIGKILL"

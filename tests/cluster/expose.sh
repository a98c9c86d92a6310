#!/bin/bash
# Links this machine with the cluster whose first process is PID: expose.sh PID
# (cluster.sh calls it). API server, Services and pods are then reachable at their
# own addresses. The link and its routes vanish with the cluster.
set -euo pipefail
first=$1
link=vlm-cluster node=10.89.0.2 networks=(10.89.0.2/32 10.96.0.0/16 10.244.0.0/16)
outside=10.89.1.1 inside=10.89.1.2
there() { nsenter --target "$first" --net "$@"; }

if ! there ip link show outside >/dev/null 2>&1; then
    for _ in $(seq 40); do # the link of a cluster that just ended takes a moment to go
        ip link show $link >/dev/null 2>&1 || break
        sleep 0.05
    done
    ip link show $link >/dev/null 2>&1 && { echo "expose: another cluster is exposed already; only one can be" >&2; exit 1; }
    for network in "${networks[@]}"; do
        taken=$(ip route show root "$network" | head -1)
        [ -z "$taken" ] || { echo "expose: this machine already uses $network: $taken" >&2; exit 1; }
    done
    ip link add $link type veth peer name outside netns "$first"
fi
ip addr replace $outside/24 dev $link
ip link set $link up
there ip addr replace $inside/24 dev outside
there ip link set outside up
for network in "${networks[@]}"; do ip route replace "$network" via $inside dev $link; done

for _ in $(seq 100); do
    (: <>/dev/tcp/$node/6443) 2>/dev/null && break
    sleep 0.05
done
echo "export KUBECONFIG=$CLUSTER_DIR/admin.kubeconfig PATH=$KUBE_BIN:\$PATH"

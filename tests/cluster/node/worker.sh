# containerd, kubelet, kube-proxy, and kwok where KWOK names it. Sourced by node.sh.
# shellcheck shell=bash disable=SC2154 # variables of node.sh, identities.sh and control-plane.sh

start_containerd() {
    cat >"$config/cni/10-bridge.conflist" <<Y
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": [[{"subnet": "10.244.0.0/16"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
Y
    # restrict_oom_score_adj: a machine without CAP_SYS_RESOURCE refuses to lower the score
    cat >"$config/containerd.toml" <<Y
version = 2
root = "$dir/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$config/cni"
Y
    start containerd containerd --config "$config/containerd.toml"
}

import_images() {
    local image
    for image in $IMAGES; do
        ctr --namespace k8s.io images import --digests=false "$image" >>"$log/images.log" 2>&1 ||
            give_up "image $image cannot be imported"
    done
}

start_kubelet() {
    # The Node authorizer learns a pod's volumes a moment after the kubelet does; a kubelet
    # that asks too early waits ten seconds. The old role lets it ask at any time.
    kubectl create clusterrolebinding node --clusterrole=system:node --group=system:nodes >/dev/null
    # clusterDNS: nothing answers there, so a pod's lookup fails at once
    cat >"$config/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$pki/ca.crt"}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$CLUSTER_CGROUP
failCgroupV1: false
failSwapOn: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 1Mi, nodefs.available: 0%, imagefs.available: 0%, nodefs.inodesFree: 0%}
nodeStatusUpdateFrequency: 2s
syncFrequency: 10s
resolvConf: ""
clusterDNS: [127.0.0.1]
clusterDomain: cluster.local
kubeAPIQPS: 100
kubeAPIBurst: 200
Y
    start kubelet kubelet --config="$config/kubelet.yaml" --kubeconfig="$config/kubelet.kubeconfig" \
        --root-dir="$dir/kubelet" --hostname-override="$node" --node-ip="$node_ip"
}

start_proxy() {
    kubectl create clusterrolebinding kube-proxy --clusterrole=system:node-proxier \
        --user=system:kube-proxy >/dev/null
    # conntrack zeros: those settings are the machine's, not this network namespace's
    cat >"$config/proxy.yaml" <<Y
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: $node
clusterCIDR: 10.244.0.0/16
clientConnection: {kubeconfig: "$config/proxy.kubeconfig"}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {syncPeriod: 30s, minSyncPeriod: 100ms}
Y
    start proxy kube-proxy --config="$config/proxy.yaml"
}

start_kwok() { # keeps nodes alive that tests make up; none is there until then
    [ -n "${KWOK:-}" ] || return 0
    start kwok "$KWOK" --kubeconfig="$KUBECONFIG" --config="$here/node/kwok.yaml" \
        --server-address=127.0.0.1:10247
}

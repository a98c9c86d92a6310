# etcd, API server, controller manager, scheduler. Sourced by node.sh.
# shellcheck shell=bash disable=SC2154 # variables of node.sh and identities.sh

config=$dir/config
start_control_plane() {
    start_etcd
    start_apiserver
    start_controller_manager
    start_scheduler
}

start_etcd() { # no fsync: the data is thrown away
    start etcd etcd --name=local --data-dir="$dir/etcd" --unsafe-no-fsync --log-level=warn \
        --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
        --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
        --initial-cluster=local=http://127.0.0.1:2380
}

start_apiserver() {
    # who wrote what, and when, and all that the operator asks for: tests count the writes of an
    # idle cluster, and hold the operator's requests against its rights
    cat >"$config/audit.yaml" <<Y
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, resources: [{group: authentication.k8s.io}, {group: authorization.k8s.io}]} # questions, not writes
- {level: None, nonResourceURLs: ["*"]}
- {level: Metadata, users: ["system:serviceaccount:vlm-system:vlm-operator", "system:serviceaccount:vlm-system:vlm-operator-gateway"]}
- {level: Metadata, verbs: [create, update, patch, delete, deletecollection]}
- {level: None}
Y
    # strict unless a namespace's own labels say otherwise: what runs here runs anywhere
    cat >"$config/admission.yaml" <<Y
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: restricted, enforce-version: latest, warn: restricted, warn-version: latest}
    exemptions: {namespaces: [kube-system]}
Y
    start apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
        --secure-port=6443 --advertise-address="$node_ip" \
        --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
        --client-ca-file="$pki/ca.crt" --authorization-mode=Node,RBAC \
        --enable-admission-plugins=NodeRestriction,PodSecurity,OwnerReferencesPermissionEnforcement \
        --admission-control-config-file="$config/admission.yaml" \
        --audit-policy-file="$config/audit.yaml" --audit-log-path="$log/audit.log" \
        --kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key" \
        --kubelet-preferred-address-types=InternalIP \
        --service-account-issuer=https://kubernetes.default.svc --service-cluster-ip-range=10.96.0.0/16 \
        --service-account-key-file="$pki/service-accounts.key" \
        --service-account-signing-key-file="$pki/service-accounts.key" \
        --requestheader-client-ca-file="$pki/ca.crt" --requestheader-allowed-names=aggregator \
        --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
        --requestheader-extra-headers-prefix=X-Remote-Extra- --enable-aggregator-routing \
        --proxy-client-cert-file="$pki/aggregator.crt" --proxy-client-key-file="$pki/aggregator.key" \
        --allow-privileged --profiling=false --shutdown-delay-duration=0s
}

start_controller_manager() {
    start controller-manager kube-controller-manager --kubeconfig="$config/controller-manager.kubeconfig" \
        --leader-elect=false --use-service-account-credentials --root-ca-file="$pki/ca.crt" \
        --service-account-private-key-file="$pki/service-accounts.key" \
        --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
        --allocate-node-cidrs=false --kube-api-qps=1000 --kube-api-burst=2000 --profiling=false
}

start_scheduler() {
    cat >"$config/scheduler.yaml" <<Y
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: "$config/scheduler.kubeconfig", qps: 1000, burst: 2000}
Y
    start scheduler kube-scheduler --config="$config/scheduler.yaml"
}

# A certificate authority for this cluster, and who is who. Sourced by node.sh.
# shellcheck shell=bash disable=SC2154 # variables of node.sh

pki=$dir/pki
new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
certify() { # NAME SUBJECT [EXTENSION]
    new_key "$pki/$1.key"
    openssl req -new -key "$pki/$1.key" -subj "$2" |
        openssl x509 -req -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -days 365 -out "$pki/$1.crt" \
            -extfile <(echo "extendedKeyUsage=serverAuth,clientAuth"; echo "${3:-}") 2>>"$log/openssl.log"
}
kubeconfig() { # FILE SUBJECT
    local name
    name=$(basename "$1" .kubeconfig)
    certify "$name" "$2"
    cat >"$1" <<Y
apiVersion: v1
kind: Config
current-context: local
contexts: [{name: local, context: {cluster: local, user: $name}}]
clusters:
- name: local
  cluster: {server: "https://$node_ip:6443", certificate-authority-data: $(base64 -w0 "$pki/ca.crt")}
users:
- name: $name
  user: {client-certificate-data: $(base64 -w0 "$pki/$name.crt"), client-key-data: $(base64 -w0 "$pki/$name.key")}
Y
    chmod 600 "$1"
}

make_identities() {
    local names=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc
    new_key "$pki/ca.key"
    openssl req -x509 -new -key "$pki/ca.key" -subj /CN=vlm-cluster -days 365 -out "$pki/ca.crt"
    new_key "$pki/service-accounts.key"
    certify apiserver /CN=kube-apiserver "subjectAltName=$names,IP:127.0.0.1,IP:$node_ip,IP:10.96.0.1"
    certify aggregator /CN=aggregator
    certify kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
    kubeconfig "$dir/admin.kubeconfig" /O=system:masters/CN=admin
    kubeconfig "$dir/config/controller-manager.kubeconfig" /CN=system:kube-controller-manager
    kubeconfig "$dir/config/scheduler.kubeconfig" /CN=system:kube-scheduler
    kubeconfig "$dir/config/kubelet.kubeconfig" "/O=system:nodes/CN=system:node:$node"
    kubeconfig "$dir/config/proxy.kubeconfig" /CN=system:kube-proxy
}

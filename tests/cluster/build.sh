#!/bin/bash
# Builds what the local cluster is made of: etcd, the Kubernetes components,
# kubectl and helm from Go modules, and the pause image. Does nothing when the
# result in the cache is of the same sources and the same Go.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${XDG_CACHE_HOME:-$HOME/.cache}/vlm-operator/kube
mkdir -p "$out"
export PATH=$PATH:/usr/local/go/bin

"$here/packages.sh" containerd runc containernetworking-plugins iptables nftables conntrack \
    iproute2 procps openssl
command -v go >/dev/null || { echo "build.sh: Go 1.24 or newer is needed (go.dev/dl)" >&2; exit 1; }

exec 8>"$out/lock"
flock --nonblock 8 || { echo "waiting for another build of the cluster's binaries"; flock 8; }
stamp=$(cd "$here" && find build.sh kube -type f | LC_ALL=C sort | xargs sha256sum; go version)
if [ "$stamp" != "$(cat "$out/stamp" 2>/dev/null)" ]; then
    cd "$here/kube"
    version() { go list -m -f '{{.Version}}' "$1"; }
    echo "fetching Go modules (about 750 MB, under a minute)"
    go mod download 2>&1 | { grep -v '^go: downloading' || true; }
    kube=$(version k8s.io/kubernetes) helm=$(version helm.sh/helm/v3)
    minor=${kube#v1.}
    numbers=k8s.io/component-base/version
    flags="-s -w -X $numbers.gitVersion=$kube -X $numbers.gitMajor=1 -X $numbers.gitMinor=${minor%%.*}"
    flags+=" -X k8s.io/client-go/pkg/version.gitVersion=$kube -X helm.sh/helm/v3/internal/version.version=$helm"
    for package in chartutil lint/rules; do # the version that `helm template` and `helm lint` take charts to be for
        flags+=" -X helm.sh/helm/v3/pkg/$package.k8sVersionMajor=1"
        flags+=" -X helm.sh/helm/v3/pkg/$package.k8sVersionMinor=${minor%%.*}"
    done
    targets=(. ./pause helm.sh/helm/v3/cmd/helm)
    export CGO_ENABLED=0
    total=$(go list -deps "${targets[@]}" | wc -l)
    echo "compiling Kubernetes $kube and helm $helm: $total packages, 8 to 12 minutes on 2 cores the first time"
    rm -rf "$out/bin.new"
    # -v names each package as it is compiled; shown as a count, about once a minute
    go build -v -trimpath -buildvcs=false -ldflags "$flags" -o "$out/bin.new/" "${targets[@]}" 2>&1 |
        awk -v total="$total" '!/^[a-z0-9.]+(\/[^ ]+)*$/ { print; fflush(); next }
             ++n % 150 == 0 { printf "  %4d of %d packages\n", n, total; fflush() }'
    for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
        ln -s kube "$out/bin.new/$name"
    done
    rm -rf "${out:?}/bin"
    mv "$out/bin.new" "$out/bin"
    echo "$stamp" >"$out/stamp"
fi
"$here/../../images/build.sh" pause

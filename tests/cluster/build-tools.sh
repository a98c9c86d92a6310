#!/bin/bash
# Builds what only tests need beside the cluster (build.sh), from Go modules: kwok, whose nodes
# are made up, and gitops-health, which judges objects as Argo CD and Flux do. Each is left as it
# is when the result in the cache is of the same sources and the same Go.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${XDG_CACHE_HOME:-$HOME/.cache}/vlm-operator/tools
mkdir -p "$out/bin"
export PATH=$PATH:/usr/local/go/bin CGO_ENABLED=0
command -v go >/dev/null || { echo "build-tools.sh: Go 1.24 or newer is needed (go.dev/dl)" >&2; exit 1; }

exec 8>"$out/lock"
flock --nonblock 8 || { echo "waiting for another build of the tests' tools"; flock 8; }
build() { # NAME FOLDER PACKAGE [LINKER FLAGS]
    local stamp
    stamp=$(cd "$here" && find build-tools.sh "$2" -type f | LC_ALL=C sort | xargs sha256sum; go version)
    [ "$stamp" != "$(cat "$out/$1.stamp" 2>/dev/null)" ] || return 0
    cd "$here/$2"
    echo "compiling $1: $(go list -deps "$3" 2>/dev/null | wc -l) packages"
    go build -trimpath -buildvcs=false -ldflags "-s -w ${4:-}" -o "$out/bin/$1.new" "$3"
    mv "$out/bin/$1.new" "$out/bin/$1"
    echo "$stamp" >"$out/$1.stamp"
}
build gitops-health gitops .
kwok=$(sed -n 's/^[[:space:]]*sigs.k8s.io\/kwok \(v[^ ]*\).*/\1/p' "$here/kwok/go.mod")
build kwok kwok sigs.k8s.io/kwok/cmd/kwok "-X sigs.k8s.io/kwok/pkg/consts.Version=$kwok"

#!/bin/bash
# Builds container images with buildah, no registry and no daemon:
#   images/build.sh [NAME...]      operator gateway runtime tiny-llava tiny-internvl prometheus, all by default; pause,
#                                  test-hub, stand-in (as runtime-cuda), runtime-cuda (after make cuda)
# Each becomes an archive in the cache, images/NAME.tar, that `cluster.sh load` or
# `docker load` takes. One whose files did not change is left as it is.
#   PUSH=1 IMAGE_PREFIX=REGISTRY/PATH images/build.sh
# pushes them instead (after `buildah login REGISTRY`; PUSH_FLAGS=--tls-verify=false for plain http).
#   BASE=REGISTRY/IMAGE images/build.sh operator gateway runtime runtime-cuda
# lays them on an image of yours instead of nothing, such as one that your scanner knows.
#   ARCHITECTURES="amd64 arm64" PUSH=1 IMAGE_PREFIX=... images/build.sh operator gateway runtime
# pushes one name for several architectures, whose binaries have been built (stage.sh).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${XDG_CACHE_HOME:-$HOME/.cache}/vlm-operator/images
prefix=${IMAGE_PREFIX:-localhost}
prefix=${prefix%/}
architectures=${ARCHITECTURES:-$(dpkg --print-architecture)}
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version *= *"\(.*\)"/\1/p' "$here/../Cargo.toml")
case $architectures in
*' '*) [ -n "${PUSH:-}" ] || { echo "build.sh: images of several architectures can only be pushed (PUSH=1)" >&2; exit 1; } ;;
esac
mkdir -p "$out"
exec 7>"$out/lock"
flock 7
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
store=(--root "$work/store" --runroot "$work/run" --storage-driver vfs)

reference() {
    case $1 in
    pause) echo "$prefix/pause:1" ;;
    stand-in) echo "$prefix/vlm-runtime-cuda:$version" ;;
    *) echo "$prefix/vlm-$1:$version" ;;
    esac
}
dockerfile() { case $1 in tiny-*) echo "$here/Dockerfile.weights" ;; *) echo "$here/Dockerfile.$1" ;; esac; }
fingerprint() { # of an image's name and every file that goes into it
    echo "$1"
    cd "$work/$2"
    find . -type f -exec sha256sum {} + | LC_ALL=C sort
    sha256sum <"$(dockerfile "$2")"
    echo "${BASE:-scratch}"
}
build() { # NAME
    local name=$1 image stamp
    image=$(reference "$name")
    "$here/stage.sh" "$name" "$work/$name"
    stamp=$(fingerprint "$image" "$name")
    if [ -z "${PUSH:-}" ] && [ -e "$out/$name.tar" ] && [ "$stamp" = "$(cat "$out/$name.stamp" 2>/dev/null)" ]; then
        echo "image $image is up to date"
        return
    fi
    "$here/../tests/cluster/packages.sh" buildah
    for architecture in $architectures; do
        # shellcheck disable=SC2086 # absent, or two words
        buildah "${store[@]}" bud ${BASE:+--build-arg BASE=$BASE} --quiet --isolation chroot --timestamp 0 --platform "linux/$architecture" \
            --file "$(dockerfile "$name")" --tag "$image" --manifest "$image-all" "$work/$name" >/dev/null
    done
    if [ -n "${PUSH:-}" ]; then
        # shellcheck disable=SC2086 # several flags
        buildah "${store[@]}" manifest push --quiet --all ${PUSH_FLAGS:-} "$image-all" "docker://$image"
        echo "image $image pushed for $architectures"
    else
        rm -f "$out/$name".*
        buildah "${store[@]}" push --quiet "$image" "oci-archive:$work/$name.tar:$image"
        mv "$work/$name.tar" "$out/$name.tar"
        echo "$stamp" >"$out/$name.stamp"
        echo "image $image built: $(du -m "$out/$name.tar" | cut -f1) MB"
    fi
}

[ $# -gt 0 ] || set -- operator gateway runtime tiny-llava tiny-internvl prometheus
for name in "$@"; do build "$name"; done

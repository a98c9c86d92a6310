#!/bin/bash
# Lays out the files an image is made of: stage.sh NAME FOLDER
# Binaries must have been built (make images does); Debian's are fetched.
# ARCHITECTURES="amd64 arm64" lays out those of several; each must have been built with
# cargo build --release --target x86_64-unknown-linux-gnu (or aarch64-unknown-linux-gnu).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/vlm-operator
name=$1
mkdir -p "$2"
to=$(cd "$2" && pwd)

static() { # a static binary of this workspace, for each architecture
    local architecture built
    for architecture in ${ARCHITECTURES:-$(dpkg --print-architecture)}; do
        case $architecture in
        amd64) built=x86_64-unknown-linux-gnu ;;
        arm64) built=aarch64-unknown-linux-gnu ;;
        *) echo "stage.sh: no target is known for $architecture, only amd64 and arm64" >&2; exit 1 ;;
        esac
        built=${CARGO_TARGET_DIR:-$cache/target}/$built/release/$1
        [ -x "$built" ] || { echo "stage.sh: $built is missing: make images builds it" >&2; exit 1; }
        ! ldd "$built" >/dev/null 2>&1 || ldd "$built" | grep -q statically ||
            { echo "stage.sh: $built is not linked statically" >&2; exit 1; }
        install -D -m 755 "$built" "$to/$architecture/$1"
    done
}
debian() { # the files of a Debian package, without installing it
    local unpacked=$cache/debian/$1
    if [ ! -d "$unpacked" ]; then
        mkdir -p "$unpacked.new"
        (cd "$unpacked.new"
         apt-get download -q -o APT::Sandbox::User=root "$1" >/dev/null 2>&1 ||
            { apt-get update -q >/dev/null && apt-get download -q -o APT::Sandbox::User=root "$1" >/dev/null; }
         dpkg-deb --extract ./*.deb . && rm ./*.deb)
        mv "$unpacked.new" "$unpacked"
    fi
    echo "$unpacked"
}

authorities() { # FILE: the public certificate authorities
    cat "$(debian ca-certificates)"/usr/share/ca-certificates/mozilla/*.crt >"$1"
}

case $name in
gateway) static vlm-gateway ;;
operator | runtime) # with the public certificate authorities: hub and Prometheus may be behind https
    static "vlm-$name"
    authorities "$to/ca-certificates.crt" ;;
runtime-cuda) # make cuda builds the binary; it opens the libraries of CUDA when it finds a GPU
    binary=$cache/target-cuda/x86_64-unknown-linux-gnu/release/vlm-runtime
    [ -x "$binary" ] || { echo "stage.sh: $binary is missing: make cuda builds it" >&2; exit 1; }
    install -D -m 755 "$binary" "$to/root/usr/bin/vlm-runtime"
    strip "$to/root/usr/bin/vlm-runtime"
    # The driver's own libraries need parts of libc6 that the binary does not.
    for package in libc6 libgcc-s1 libstdc++6; do
        unpacked=$(debian "$package")
        (cd "$unpacked" && find . -name '*.so*' -print0 | tar --create --null --files-from=- | tar --extract --directory "$to/root")
    done
    "$here/../cuda/libraries.sh" "$cache/cuda-libraries"
    mkdir -p "$to/root/usr/local/cuda" "$to/cache"
    cp -r "$cache/cuda-libraries/lib" "$to/root/usr/local/cuda/lib64"
    mkdir -p "$to/root/etc/ssl/certs"
    authorities "$to/root/etc/ssl/certs/ca-certificates.crt" ;;
stand-in) static stand-in ;;
test-hub) # with the tiny models, one of them for those with its token alone
    static test-hub
    mkdir -p "$to/repositories/tiny"
    for model in tiny-llava tiny-internvl; do cp -r "$here/../examples/$model/model" "$to/repositories/tiny/$model"; done
    cp -r "$to/repositories/tiny/tiny-llava" "$to/repositories/tiny/private"
    echo hf_test_token >"$to/repositories/tiny/private/.token"
    # A file whose name leaves no room for what stands behind it while it is fetched.
    cp -r "$to/repositories/tiny/tiny-llava" "$to/repositories/tiny/long-name"
    long=$(printf 'x%.0s' {1..240}).safetensors
    mv "$to/repositories/tiny/long-name/model.safetensors" "$to/repositories/tiny/long-name/$long"
    echo "{\"weight_map\": {\"any\": \"$long\"}}" >"$to/repositories/tiny/long-name/model.safetensors.index.json" ;;
tiny-llava | tiny-internvl)
    install -m 755 "$(debian busybox-static)/bin/busybox" "$to/busybox"
    install -m 644 "$here/publish.sh" "$to/publish.sh"
    mkdir "$to/weights"
    install -m 644 "$here/../examples/$name/model"/* "$to/weights/" ;;
prometheus)
    binary=$(debian prometheus)/usr/bin/prometheus
    install -D -m 755 "$binary" "$to/root/usr/bin/prometheus"
    ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
        install -D -m 755 "$(realpath "$library")" "$to/root$library"
    done ;;
pause) install -m 755 "$cache/kube/bin/pause" "$to/pause" ;;
*) echo "stage.sh: no image is called $name" >&2; exit 1 ;;
esac

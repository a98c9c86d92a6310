#!/bin/bash
# NVCC=this file: the CUDA compiler for every GPU that is served, with a cache.
#
# Callers name one architecture. Object files and fat binaries get machine code for sm_80 (which runs on 8.0, 8.6 and
# 8.9) and for sm_90a, and PTX of compute_80 behind both for what comes later; files of PTX are made for compute_80.
# A file is compiled again only when the compiler, its arguments or any CUDA source below the current directory changed.
set -euo pipefail
real=${REAL_NVCC:-$CUDA_HOME/bin/nvcc}
cache=${NVCC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vlm-operator/nvcc}

mode='' out='' args=() input=${*: -1}
while [ $# -gt 0 ]; do
    case $1 in
        -gencode=* | --compress-mode=*) ;;
        -c) mode=object args+=("$1") ;;
        -fatbin | --fatbin) mode=fatbin args+=("$1") ;;
        --ptx) mode=ptx args+=("$1") ;;
        -o | --output-directory) out=$2 && shift ;;
        "$input") ;;
        *) args+=("$1") ;;
    esac
    shift
done
case $mode in
    object | fatbin)
        args+=("-gencode=arch=compute_80,code=sm_80" "-gencode=arch=compute_90a,code=sm_90a")
        args+=("-gencode=arch=compute_80,code=compute_80" --compress-mode=size)
        ;;
    ptx)
        args+=("-gencode=arch=compute_80,code=compute_80")
        out=$out/$(basename "${input%.cu}").ptx
        ;;
    *)
        # Version, libraries: nothing to make for a GPU.
        exec "$real" "${args[@]}" ${out:+-o "$out"} "$input"
        ;;
esac

sources() {
    find . \( -name target -o -name .git \) -prune -o -type f \( -name '*.cu' -o -name '*.cuh' -o -name '*.h' \) -print0 |
        LC_ALL=C sort -z | xargs -0 --no-run-if-empty sha256sum
}
key=$({
    "$real" --version | grep release
    printf '%s\n' "${args[@]}" "${input#"$PWD/"}"
    sources
} | sha256sum | cut -c1-40)
mkdir -p "$cache"
if [ ! -f "$cache/$key" ]; then
    "$real" "${args[@]}" -o "$cache/$key.$$" "$input"
    mv "$cache/$key.$$" "$cache/$key"
fi
cp "$cache/$key" "$out"

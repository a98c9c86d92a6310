#!/bin/bash
# NVCC=this file: a CUDA compiler that makes empty files, so that CUDA code can be type-checked where there is no CUDA.
set -euo pipefail
mode='' out='' folder='' input=${*: -1}
while [ $# -gt 0 ]; do
    case $1 in
        --version)
            echo 'Cuda compilation tools, release 13.0, V13.0.88'
            exit
            ;;
        -o) out=$2 && shift ;;
        --output-directory) folder=$2 && shift ;;
        --ptx | --lib) mode=$1 ;;
    esac
    shift
done
case $mode in
    --ptx) : >"$folder/$(basename "${input%.cu}").ptx" ;;
    --lib)
        rm -f "$out"
        ar crs "$out"
        ;;
    *) : >"$out" ;;
esac

#!/bin/bash
# Lays a CUDA 13.0 compiler out in a folder, from the wheels that NVIDIA publishes: toolchain.sh FOLDER. Prints nothing
# when it is there already. All versions belong together: a newer part writes PTX that the others refuse.
set -euo pipefail
folder=${1:?folder}
python=${PYTHON:-python3}
wheels=(
    nvidia-cuda-nvcc==13.0.88
    nvidia-cuda-crt==13.0.88
    nvidia-nvvm==13.0.88
    nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85
)
home=$folder/nvidia/cu13
if [ "$(cat "$folder/wheels" 2>/dev/null)" = "${wheels[*]}" ]; then exit; fi
rm -rf "$folder"
mkdir -p "$folder"
# An environment of its own: some systems let nobody install beside their packages.
"$python" -m venv "$folder/venv" 2>/dev/null || {
    "$(dirname "$0")/../tests/cluster/packages.sh" python3-venv
    "$python" -m venv --clear "$folder/venv"
}
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --no-compile \
    --target "$folder" "${wheels[@]}"
# What the linker asks for. The runtime is linked statically; the driver and cuBLAS are opened when the program runs, so
# that it starts without them.
mkdir -p "$home/lib/stubs"
echo 'INPUT(libcudart_static.a)' >"$home/lib/stubs/libcudart.so"
for name in cuda cublas cublasLt curand nvrtc; do
    echo '/* opened when the program runs */' >"$home/lib/stubs/lib$name.so"
done
ln -sfn lib "$home/lib64"
"$home/bin/nvcc" --version | tail -2
echo "${wheels[*]}" >"$folder/wheels"

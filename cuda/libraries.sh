#!/bin/bash
# Lays out the libraries of CUDA 13.0 that the runtime opens on a GPU, from the wheels that NVIDIA publishes:
# libraries.sh FOLDER. Prints nothing. The driver is none of them: the machine with the GPU brings it.
set -euo pipefail
folder=${1:?folder}
python=${PYTHON:-python3}
wheels=(
    nvidia-cublas==13.0.2.14
    nvidia-curand==10.4.0.35
)
libraries=(libcublas.so.13 libcublasLt.so.13 libcurand.so.10)
if [ "$(cat "$folder/wheels" 2>/dev/null)" = "${wheels[*]}" ]; then exit; fi
rm -rf "$folder"
mkdir -p "$folder/lib"
# An environment of its own: some systems let nobody install beside their packages.
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --no-compile \
    --no-cache-dir --target "$folder/all" "${wheels[@]}"
for library in "${libraries[@]}"; do mv "$folder/all/nvidia/cu13/lib/$library" "$folder/lib/"; done
rm -rf "$folder/all" "$folder/venv"
echo "${wheels[*]}" >"$folder/wheels"

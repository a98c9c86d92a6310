#!/bin/bash
# Runs kernels of the runtime on a processor, as machine.h does it, where every access is watched:
# run.sh FOLDER, the CUDA compiler's, whose headers they need.
set -euo pipefail
include=${1:?folder}/nvidia/cu13/include
cd "$(dirname "$0")"
work=$(mktemp --directory)
trap 'rm -rf "$work"' EXIT
mkdir "$work/kernels"
cp ../../runtime/kernels/*.cu* "$work/kernels/"
cp instructions.cuh "$work/kernels/"
# A GPU's compiler gives each block such memory.
sed -Ei 's/extern __shared__ (\w+) shared\[\];/\1 *shared = static_cast<\1 *>(machine::shared());/' "$work"/kernels/*.cu*
run() {
    g++ -std=c++17 -O1 -fsanitize=address -fno-omit-frame-pointer -w -isystem "$include" -I. -I"$work" -o "$work/$1" "$1.cpp"
    # Fibers leave their stacks as they are.
    ASAN_OPTIONS=detect_stack_use_after_return=0:detect_leaks=0 "$work/$1" 2>&1 | grep -v "ASan doesn't fully support"
}
export -f run
export work include
printf '%s\n' *.cpp | sed 's/\.cpp$//' | xargs -P "$(nproc)" -I{} bash -euo pipefail -c 'run {}'

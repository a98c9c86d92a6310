#!/bin/bash
# What `make test-fast` (phases.sh fast) and `make test` (phases.sh all) run, in
# order, and how long each phase took. Stops at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/vlm-operator
mkdir -p "$cache"
if [ "$1" = all ]; then tests/cluster/packages.sh shellcheck prometheus chromium-headless-shell; fi

table=()
phase() { # NAME COMMAND...
    local name=$1 begun=$SECONDS
    shift
    echo "=== $name"
    if "$@"; then
        table+=("$(printf '%5d s  %s' $((SECONDS - begun)) "$name")")
    else
        table+=("$(printf '%5d s  %s FAILED' $((SECONDS - begun)) "$name")")
        exit 1
    fi
}
# Kubernetes and Rust compile side by side: the one waits for the network or its
# linker while the other computes.
setsid bash -c 'tests/cluster/build.sh && tests/cluster/build-tools.sh' </dev/null >"$cache/kube-build.log" 2>&1 &
kube=$!
report() {
    if kill -0 $kube 2>/dev/null; then kill -- -$kube 2>/dev/null || true; fi
    echo "=== seconds by phase"
    printf '%s\n' "${table[@]}" "$(printf '%5d s  in all' $SECONDS)"
}
trap report EXIT
kube_built() {
    tail --pid=$kube -n +1 -f "$cache/kube-build.log"
    wait $kube
}

phase "fetch crates" cargo fetch --locked
phase "compile the CUDA kernels" make --no-print-directory cuda-kernels
phase "CUDA kernels on a processor" make --no-print-directory cuda-emulated
phase lint make --no-print-directory lint
phase "compile tests" cargo test --release --locked --workspace --no-run
phase "build Kubernetes (the rest of it)" kube_built
phase "unit, contract, CRD and chart tests" make --no-print-directory unit
phase "official clients" make --no-print-directory conformance
phase "metrics by the rules of Prometheus" make --no-print-directory metrics-check
if [ "$1" = all ]; then
    phase "build and images" make --no-print-directory images
    phase "local cluster" make --no-print-directory cluster-check
    phase "tests on a cluster" make --no-print-directory cluster-test
fi

# What CI runs is what a person runs. Without a target, make lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: metrics-check cuda-emulated images-cuda clients conformance test-images help demo demo-down demo-volume test test-fast lint shellcheck unit crds build plugin images \
	kube cluster-up cluster-down cluster-check cluster-test campaign bench docs cuda cuda-kernels cuda-lint cuda-test

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vlm-operator
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
# One target folder outside the checkout, and static binaries: they run FROM scratch.
export CARGO_TARGET_DIR := $(CACHE)/target
export CARGO_BUILD_TARGET := $(HOST)
export CARGO_TARGET_$(shell echo '$(HOST)' | tr a-z- A-Z_)_RUSTFLAGS := -C target-feature=+crt-static
export PATH := $(CACHE)/kube/bin:$(PATH):/usr/local/go/bin:/usr/sbin:/sbin

CARGO := cargo
OURS := $(CACHE)/target/$(HOST)/release
# Always the whole workspace: one set of features, so that no dependency is compiled twice.
ALL := --release --locked --workspace
WITH_CLUSTER := $(ALL) --features vlm-tests/cluster
CLUSTER_SH := tests/cluster/cluster.sh
CRD := charts/vlm-operator/templates/crd.yaml
IMAGES := $(foreach name,operator gateway runtime tiny-llava tiny-internvl prometheus,$(CACHE)/images/$(name).tar)
KWOK := $(CACHE)/tools/bin/kwok
# What the tests bring: a hub of models, and a stand-in for the model server for GPUs.
TEST_IMAGES := $(CACHE)/images/test-hub.tar $(CACHE)/images/stand-in.tar
PYTHON := python3
# The runtime for GPUs: another target folder, because its binaries open libraries when they run and cannot be static.
CUDA := $(CACHE)/cuda
CUDA_ENV := CUDA_COMPUTE_CAP=90 CUDARC_CUDA_VERSION=13000 CUDAFORGE_THREADS=$(shell nproc)
CUDA_BUILD = PYTHON='$(PYTHON)' cuda/toolchain.sh '$(CUDA)' && \
	env $(CUDA_ENV) CUDA_HOME='$(CUDA)/nvidia/cu13' NVCC='$(CURDIR)/cuda/nvcc.sh' NVCC_CACHE='$(CACHE)/nvcc' \
	VLM_COMMIT="$$(git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null)" \
	CARGO_TARGET_DIR='$(CACHE)/target-cuda' PATH='$(CUDA)/nvidia/cu13/bin:$(PATH)' \
	CARGO_TARGET_$(shell echo '$(HOST)' | tr a-z- A-Z_)_RUSTFLAGS='--cfg feature="dynamic-loading"'
CUDA_BINARY := $(CACHE)/target-cuda/$(HOST)/release/vlm-runtime

help: ## this list
	@echo 'make TARGET:'
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

demo: ## one manifest to one answer, then load and scaling, on a cluster of its own (CLUSTER=current: on yours)
	@$(PYTHON) demo/run.py

demo-down: ## remove all that the demo made
	@if [ '$(CLUSTER)' != current ]; then exec $(CLUSTER_SH) down; fi
	kubectl delete --ignore-not-found -f examples/tiny-llava.yaml || true
	kubectl delete --ignore-not-found -f examples/tiny-llava-weights.yaml -f examples/prometheus.yaml
	helm uninstall vlm-operator --namespace vlm-system --ignore-not-found --wait
	kubectl delete --ignore-not-found -f $(CRD)
	kubectl delete --ignore-not-found namespace vlm-system

demo-volume:
	@$(CLUSTER_SH) volume tiny-llava

test: ## all tests of CI, those on a real cluster among them
	@tests/phases.sh all

test-fast: ## the tests that need no cluster
	@tests/phases.sh fast

lint: shellcheck ## format, clippy, the CUDA code as well, docs, shell scripts
	$(CARGO) fmt --check
	$(CARGO) clippy $(WITH_CLUSTER) --all-targets -- -D warnings
	$(MAKE) --no-print-directory cuda-lint
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc $(WITH_CLUSTER) --no-deps --quiet

shellcheck:
	@if ! command -v shellcheck >/dev/null; then
		echo 'shellcheck is not installed: shell scripts are not checked'
		exit
	fi
	shellcheck --external-sources tests/*.sh tests/clients/*.sh tests/cluster/*.sh images/*.sh cuda/*.sh cuda/emulated/*.sh .ci/run
	shellcheck --external-sources --check-sourced tests/cluster/node.sh

unit: ## every Rust test that needs no cluster, the chart's (with helm) among them
	$(CARGO) test $(ALL)

metrics-check: build ## the runtime's metrics by the rules of Prometheus (with promtool)
	@tests/metrics.sh $(OURS)/vlm-runtime

crds: ## write the chart's CRD from the Rust types
	$(CARGO) build $(ALL) --bin crdgen
	crd=$$($(OURS)/crdgen)
	echo "$$crd" >$(CRD)

build: ## our own binaries, static
	$(CARGO) build $(ALL) --bins

plugin: build ## kubectl vlm: plan, status, logs (BIN=folder; ~/.local/bin unless said)
	install -D $(OURS)/kubectl-vlm $(or $(BIN),$(HOME)/.local/bin)/kubectl-vlm

images: build ## container images (PUSH=1 IMAGE_PREFIX=registry/path pushes them)
	@images/build.sh

images-cuda: cuda ## the container image of the runtime for GPUs (the same flags)
	@PYTHON='$(PYTHON)' images/build.sh runtime-cuda

kube: ## Kubernetes for the local cluster, and tools of the tests, from Go modules
	@tests/cluster/build.sh
	tests/cluster/build-tools.sh

cluster-up: ## a local cluster with our images, reachable from this machine
	@tests/cluster/build.sh &
	kube=$$!
	trap 'kill $$kube 2>/dev/null || true' EXIT
	make --no-print-directory images
	wait $$kube
	$(CLUSTER_SH) up
	$(CLUSTER_SH) load $(IMAGES)
	$(CLUSTER_SH) expose

cluster-down: ## end the local cluster without a trace
	@$(CLUSTER_SH) down

cluster-check: ## the local cluster's own tests
	@tests/cluster/check.sh

clients: ## the official clients that the tests use, for Python and Node
	@packages=$$(sha256sum <tests/clients/node/package-lock.json)
	if [ "$$packages" != "$$(cat $(CACHE)/node/stamp 2>/dev/null)" ]; then
		mkdir -p $(CACHE)/node
		cp tests/clients/node/package*.json $(CACHE)/node/
		npm ci --prefix $(CACHE)/node --silent --no-audit --no-fund
		echo "$$packages" >$(CACHE)/node/stamp
	fi
	stamp=$$(sha256sum <tests/clients/requirements.txt)
	if [ "$$stamp" != "$$(cat $(CACHE)/python/stamp 2>/dev/null)" ]; then
		rm -rf $(CACHE)/python
		$(PYTHON) -m venv $(CACHE)/python 2>/dev/null || { tests/cluster/packages.sh python3-venv && $(PYTHON) -m venv $(CACHE)/python; }
		$(CACHE)/python/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
		echo "$$stamp" >$(CACHE)/python/stamp
	fi

conformance: clients build ## the official clients and made-up requests against the model server
	NODE_PACKAGES=$(CACHE)/node tests/clients/serve.py $(OURS)/vlm-runtime tests/clients/run.sh $(CACHE)/python/bin/python

test-images:
	$(CARGO) build $(WITH_CLUSTER) --bin test-hub --bin stand-in
	images/build.sh test-hub stand-in

cluster-test: clients test-images ## the tests on a fresh cluster (after kube and images; ARGS=... goes to the test program)
	$(CARGO) test $(WITH_CLUSTER) --test e2e --test alone --no-run
	export CLUSTER_DIR=$(CACHE)/test-cluster IMAGES='$(IMAGES) $(TEST_IMAGES)' KWOK=$(KWOK)
	$(CLUSTER_SH) run bash -euc '"$$@" --test e2e -- --test-threads=3 $(ARGS); "$$@" --test alone -- --test-threads=1 $(ARGS)' - \
		$(CARGO) test $(WITH_CLUSTER) --offline

campaign: ## a long test: NAME=geometries|scheduler|schemathesis, or NAME=idle|many|latency|edits|wake|streams|burst|outage on a fresh cluster (after kube and images); SEED=...
	case '$(NAME)' in
	geometries | scheduler) exec $(CARGO) test $(ALL) --test $(NAME) -- --all --seed $(or $(SEED),1) ;;
	schemathesis)
		make --no-print-directory clients build
		exec tests/clients/serve.py $(OURS)/vlm-runtime $(CACHE)/python/bin/python tests/clients/odd_requests.py \
			--examples 400 --seed $(or $(SEED),1) --result tests/results/schemathesis-$(or $(SEED),1).json ;;
	esac
	make --no-print-directory test-images
	$(CARGO) build $(WITH_CLUSTER) --bin campaign
	CLUSTER_DIR=$(CACHE)/campaign-cluster IMAGES='$(IMAGES) $(TEST_IMAGES)' KWOK=$(KWOK) $(CLUSTER_SH) run \
		$(OURS)/campaign --seed $(or $(SEED),1) $(NAME)

bench: ## the speed of the runtime's core on one processor core
	RAYON_NUM_THREADS=1 taskset -c 0 $(CARGO) bench --locked --workspace --bench engine -- \
		$(CURDIR)/examples/tiny-llava/model $(CURDIR)/examples/tiny-llava/demo.png

cuda: ## the runtime for NVIDIA GPUs and CPUs, on a machine with or without one (about ten minutes at first)
	$(CUDA_BUILD) $(CARGO) build --release --locked --package vlm-runtime --features cuda --bins
	if readelf --dynamic '$(CUDA_BINARY)' | grep 'NEEDED.*libcu'; then
		echo 'the binary needs CUDA to start; it must open it when it runs'
		exit 1
	fi
	echo '$(CUDA_BINARY)'

cuda-kernels: ## compile the project's own CUDA kernels alone, for every GPU that is served
	@PYTHON='$(PYTHON)' cuda/toolchain.sh '$(CUDA)'
	export CUDA_HOME='$(CUDA)/nvidia/cu13' NVCC_CACHE='$(CACHE)/nvcc'
	out=$$(mktemp --directory)
	trap 'rm -rf "$$out"' EXIT
	cd runtime
	basename --suffix=.cu kernels/*.cu |
		xargs -P "$$(nproc)" -I{} ../cuda/nvcc.sh -fatbin -O3 -std=c++17 -o "$$out/{}" kernels/{}.cu

cuda-emulated: ## kernels of the runtime on a processor, where every access is watched
	@PYTHON='$(PYTHON)' cuda/toolchain.sh '$(CUDA)'
	cuda/emulated/run.sh '$(CUDA)'

cuda-lint: ## clippy on the code behind the feature cuda, where there is no CUDA
	env $(CUDA_ENV) NVCC='$(CURDIR)/cuda/nvcc-check.sh' CUDA_HOME=/usr \
		$(CARGO) clippy $(WITH_CLUSTER),vlm-runtime/cuda --all-targets -- -D warnings

cuda-test: ## the GPU's tests; without a GPU those of the diagnosis alone
	$(CUDA_BUILD) $(CARGO) test --release --locked --package vlm-runtime --features cuda --test gpu

docs: ## the Rust documentation, for reading
	$(CARGO) doc $(ALL) --no-deps --document-private-items
	echo 'open $(CACHE)/target/$(HOST)/doc/vlm_operator/index.html'

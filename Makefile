# Everything a developer runs. `make` alone lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
TOOLS := $(CURDIR)/.cache/tools
TIMEOUT ?= 30m
FAULTS ?= 200
JOBS ?= 2
SEED ?= 1
BEHIND ?= distribution

.PHONY: help build runtime demo test test-clients test-conformance test-faults mlflow test-mlflow lint bench bench-gate crosscheck models clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/grindstone
	go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/grindstone .

runtime: ## fetch ONNX Runtime into the cache folder (RUNTIME=cuda: with CUDA; ORT_LIBRARY: use that one)
	@scripts/runtime.sh $(if $(filter cuda,$(RUNTIME)),--cuda)

demo: build runtime ## push a poisoned model, watch it being sanitized, verify the attestation
	bin/grindstone demo $(ARGS)

test: runtime ## vet and run all tests (ARGS: further flags of go test; TIMEOUT)
	go vet ./...
	go test -timeout $(TIMEOUT) $(ARGS) ./...
	go test -timeout $(TIMEOUT) $(ARGS) -tags fixedsecret ./sanitize # repeatable: tighter bounds, and the same bytes twice

test-clients: runtime ## push, pull and verify models with the real clients: oras, crane, regctl, skopeo, helm, cosign, kit, modctl (builds those that Go can get)
	GRINDSTONE_PROGRAMS=1 go test -count=1 -timeout $(TIMEOUT) -run '^TestClient' -v $(ARGS) ./integration

test-conformance: runtime ## run the OCI distribution-spec's conformance suite against the server, alone and in front of other registries
	GRINDSTONE_PROGRAMS=1 go test -count=1 -timeout $(TIMEOUT) -run '^TestConformance' -v $(ARGS) ./integration

test-faults: runtime ## kill real processes at random moments of a stream of pushes (FAULTS: how many, 200; SEED of the plan; TIMEOUT; ARGS)
	go test -run '^TestFault' -count 1 -v -timeout $(TIMEOUT) $(ARGS) ./integration -faults $(FAULTS) -seed $(SEED)

mlflow: ## install MLflow, for test-mlflow
	test -x .cache/mlflow/bin/mlflow || { python3 -m venv .cache/mlflow && .cache/mlflow/bin/pip install -q -r integration/testdata/mlflow/requirements.txt; }

test-mlflow: runtime mlflow ## sanitize models of a real MLflow server: its webhook, its client, a new version with an alias
	go test -count=1 -timeout $(TIMEOUT) -run '^TestMLflow' -v $(ARGS) ./integration

lint: ## vet, staticcheck and more (.golangci.yml), known vulnerabilities (VULN=skip: where their database cannot be reached)
	GOBIN='$(TOOLS)' go -C scripts/tools install tool
	'$(TOOLS)/golangci-lint' run
ifeq ($(VULN),skip)
	@echo 'make lint: known vulnerabilities were NOT checked (VULN=skip)'
else
	@'$(TOOLS)/govulncheck' $(if $(VULNDB),-db "$(VULNDB)") ./... || { \
	  code=$$?; [[ $$code == 3 ]] || \
	  echo 'make lint: govulncheck could not do its work (its message is above). It needs its database: VULNDB=file:///copy/of/it names a copy, VULN=skip leaves it out.' >&2; \
	  exit $$code; }
endif

bench: build runtime ## benchmarks, and the training step against PyTorch (ARGS: further flags of bench/step.py; NAD: the published model's file)
	go test -run '^$$' -bench . -benchmem -timeout $(TIMEOUT) ./...
	test -x .cache/bench/bin/python || { python3 -m venv .cache/bench && .cache/bench/bin/pip install -q -r bench/requirements.txt; }
	.cache/bench/bin/python bench/step.py $(if $(NAD),--nad '$(NAD)') $(ARGS)

bench-gate: build ## what the gateway costs: throughput, latency, memory, against a registry (BEHIND: distribution, distribution-socket, olareg, embedded; WORK: folder with 20 GB; ARGS: flags of bench/gate)
ifneq ($(filter distribution%,$(BEHIND)),)
	test -x '$(TOOLS)/registry' || GOBIN='$(TOOLS)' GOFLAGS= go install github.com/distribution/distribution/v3/cmd/registry@v3.1.2
	go run ./bench/gate -behind '$(BEHIND)' -registry '$(TOOLS)/registry' -work '$(or $(WORK),.cache/gate)' $(ARGS)
else
	go build -o '$(TOOLS)/olareg' github.com/olareg/olareg/cmd/olareg
	go run ./bench/gate -behind '$(BEHIND)' -registry '$(TOOLS)/olareg' -work '$(or $(WORK),.cache/gate)' $(ARGS)
endif
	go test ./policy -run '^$$' -bench Latency -benchtime 20s

CROSSCHECK = test -x .cache/crosscheck/bin/python || { python3 -m venv .cache/crosscheck && .cache/crosscheck/bin/pip install -q -r bench/crosscheck/requirements.txt; }; \
  .cache/crosscheck/bin/python bench/crosscheck/crosscheck.py

crosscheck: build runtime ## compare the training step with PyTorch, ten exports; BREAK=Op: that rule, broken by 1 %, must be caught (ARGS: flags of crosscheck.py)
ifdef BREAK
	go build -tags breakrule -o .cache/grindstone-broken .
	$(CROSSCHECK) --cache .cache/crosscheck --grindstone .cache/grindstone-broken --break $(BREAK) $(ARGS)
else
	$(CROSSCHECK) --cache .cache/crosscheck $(ARGS)
endif

models: build runtime ## compare every model of the table with PyTorch and write docs/models.md (hours; goes on where it stopped; JOBS: at a time, 2)
	test -x .cache/tensorflow/bin/python || { python3 -m venv .cache/tensorflow && .cache/tensorflow/bin/pip install -q -r bench/crosscheck/requirements-tensorflow.txt; }
	$(CROSSCHECK) --all --time 5 --jobs $(JOBS) --timeout 1800 --tensorflow .cache/tensorflow/bin/python --json .cache/models.jsonl --table docs/models.md $(ARGS)

clean: ## remove what was built; the downloaded runtime stays in the user's cache folder
	rm -rf bin dist .cache

# The two commands of the README are `make demo` and `make test`.
SHELL := /bin/bash
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null | sed 's/^v//' || echo 0.0.0-dev)
LDFLAGS := -s -w -X github.com/berth-run/berth/internal/version.version=$(VERSION)
BUILD := CGO_ENABLED=0 $(GO) build -trimpath
GOLANGCI := $(GO) -C tools/lint tool golangci-lint

.PHONY: build cluster cluster-down demo test test-unit test-e2e bench lint vet format-check generate fuzz clean

build: bin/berth bin/berthlet bin/localkube

.PHONY: bin/berth bin/berth-crash bin/berthlet bin/localkube
bin/berth: bin/berthlet
	@$(BUILD) -ldflags '$(LDFLAGS)' -o bin/berth ./cmd/berth

# Berth that dies where tests want it to; see internal/crash.
bin/berth-crash: bin/berthlet
	@$(BUILD) -tags crashpoints -ldflags '$(LDFLAGS)' -o bin/berth-crash ./cmd/berth

# The agent, which berth carries inside for each platform of containers.
bin/berthlet:
	@mkdir -p bin
	@for arch in amd64 arm64; do \
	  GOOS=linux GOARCH=$$arch $(BUILD) -ldflags '-s -w' -o bin/berthlet-$$arch ./cmd/berthlet && \
	  gzip -9nc bin/berthlet-$$arch > bin/berthlet.gz.new && \
	  { cmp -s bin/berthlet.gz.new internal/agentbin/dist/berthlet-linux-$$arch.gz || mv bin/berthlet.gz.new internal/agentbin/dist/berthlet-linux-$$arch.gz; } || exit 1; \
	done; rm -f bin/berthlet.gz.new; ln -sf berthlet-$$($(GO) env GOARCH) bin/berthlet

bin/localkube:
	@mkdir -p bin
	@$(GO) -C tools/localkube build -trimpath -ldflags '-s -w' -o ../../bin/localkube .

# The S3 server of tests, a Go module of its own too: what changes rarely is built once.
bin/s3server: tools/s3server/go.mod tools/s3server/go.sum
	@mkdir -p bin
	@CGO_ENABLED=0 $(GO) -C tools/s3server build -trimpath -ldflags '-s -w' -o ../../bin/s3server github.com/versity/versitygw/cmd/versitygw && touch bin/s3server

# A real Kubernetes on this machine; its admin kubeconfig is .localkube/default/kubeconfig.
cluster: bin/localkube
	@bin/localkube up

cluster-down: bin/localkube
	@bin/localkube down

# From nothing to a task on a real cluster.
demo:
	@bash hack/demo.sh

# All that CI runs.
test: vet format-check test-unit test-e2e

vet:
	@echo "== vet"
	@$(GO) vet -tags e2e ./...
	@$(GO) vet -tags crashpoints ./internal/crash
	@$(GO) -C tools/localkube vet ./...

format-check:
	@echo "== format"
	@unformatted=$$(git ls-files '*.go' | xargs gofmt -l); \
	if [ -n "$$unformatted" ]; then echo "not formatted (run gofmt -w):"; echo "$$unformatted"; exit 1; fi

test-unit: bin/berthlet bin/s3server
	@echo "== unit tests"
	@bash hack/race.sh
	@bash hack/postgres.sh
	@hack/dask-client.sh
	@/usr/bin/python3 -m unittest discover -q -s python/tests
	@/usr/bin/python3 internal/compute/dask/launch_test.py -q
	@$(GO) test -race ./...
	@$(GO) test -tags crashpoints ./internal/crash
	@$(GO) -C tools/localkube test ./...

test-e2e: build bin/berth-crash
	@echo "== end-to-end tests, on a real cluster"
	@bash hack/e2e.sh

# Everything that can break does, while 5,000 tasks run; about an hour.
.PHONY: chaos
chaos: build bin/berth-crash
	@bash hack/chaos.sh

bench: build
	@bash hack/bench.sh

# golangci-lint is a Go module of its own: nothing is downloaded but modules.
lint: vet format-check
	@echo "== golangci-lint"
	@$(GO) -C tools/lint build -o ../../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@bin/golangci-lint run ./...

# Code that is generated: the network API, docs/diagnosis.md.
generate:
	@mkdir -p bin/gen && $(GO) -C tools/gen build -o ../../bin/gen/ tool
	@cd proto && PATH=$(CURDIR)/bin/gen:$$PATH buf lint && PATH=$(CURDIR)/bin/gen:$$PATH buf generate
	@$(GO) generate ./...

# Each fuzz test for a short while.
fuzz:
	@bash hack/fuzz.sh

clean: cluster-down
	@rm -rf bin .localkube

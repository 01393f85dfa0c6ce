# Needs make and Go 1.26 or newer; on Debian 12 nothing else. `make` lists the targets.

GO     ?= go
PKG    ?= ./...
T      ?= 30s
ROUNDS ?= 100
SEEDS  ?= 200

# The programs of tools/ that are ours build in a second; go knows when to.
OURS   := .bin/deps .bin/testsum .bin/stats .bin/mutate .bin/notices
BUF    := .bin/buf .bin/protoc-gen-go .bin/protoc-gen-go-grpc .bin/protoc-gen-grpc-gateway
LINTER := .bin/golangci-lint

.PHONY: help build package package-test test race lint fmt generate fuzz sim bench mutate soak stats clean deps $(OURS)

help:
	@echo 'build     bin/belfry'
	@echo 'package   deb and rpm for amd64 and arm64 into dist'
	@echo 'package-test  try the deb in a fresh Debian 12, as root'
	@echo 'test      vet and all tests with -race; SHORT=1: without the scripts, under 2 minutes'
	@echo 'race      go test -race of PKG=./internal/...'
	@echo 'lint fmt  golangci-lint, generated files, licenses; format'
	@echo 'generate  gen/ from proto/, THIRD_PARTY_NOTICES'
	@echo 'fuzz      each fuzz target for T=$(T)'
	@echo 'sim       SEEDS=$(SEEDS) random fault schedules, the named scenarios, 10,000 nodes'
	@echo 'mutate    each mutant of testdata/mutants.txt must be found by its test'
	@echo 'soak      the long variants of all tests, ROUNDS=$(ROUNDS) of each script; hours'
	@echo 'bench     the figures of bench/README.md'
	@echo 'stats     the longest files and functions'
	@echo 'deps      the Debian packages that the tests use'
	@echo 'clean     remove what was built'

build:
	CGO_ENABLED=0 $(GO) build -o bin/belfry ./cmd/belfry

package: .bin/nfpm
	packaging/build.sh

# Needs root and, the first time, a Debian mirror: not a part of test.
package-test: .bin/nfpm .bin/deps
	@.bin/deps packaging/test-packages.txt package
	@packaging/test.sh

# Two runs of go test, which testsum sums up. One vets each package with all
# checks and has -race, where a C compiler works. What is several times slower
# with it has all its seeds and scripts in the other: a simulation has one
# goroutine, and of the scripts a dozen run every loop of an agent. Scripts wait
# most of the time, so that more of them run at once than there are processors.
test: deps .bin/testsum
ifdef SHORT
	@.bin/testsum -race off -- -short -vet=all
else
	@.bin/testsum -race off -packages ./cmd/belfry,./internal/sim/...,./internal/cluster/...,./internal/event/...,./internal/repository/... -- -count=1 -parallel 4 -timeout 40m
	@.bin/testsum -modules .,tools -- -vet=all -count=1 -parallel 4 -timeout 40m
endif

race:
	CGO_ENABLED=1 $(GO) test -race -count=1 $(PKG)

lint: $(LINTER) $(BUF) .bin/notices
	$(LINTER) run
	$(LINTER) fmt --diff
	cd tools && ../$(LINTER) run --config ../.golangci.yml ./...
	$(GO) -C bench vet ./...
	cd proto && ../.bin/buf lint
	@rm -rf .bin/generated && mkdir -p .bin/generated/gen .bin/generated/out
	cd proto && ../.bin/buf generate -o ../.bin/generated/out
	diff -r gen .bin/generated/gen
	.bin/notices -check
	@if curl -sfI -m 10 -o /dev/null https://vuln.go.dev/index/db.json; \
	then $(MAKE) .bin/govulncheck && .bin/govulncheck ./...; \
	else echo 'govulncheck: not run, its database can not be reached'; fi

fmt: $(LINTER)
	$(LINTER) fmt

generate: $(BUF) .bin/notices
	cd proto && ../.bin/buf generate
	.bin/notices

fuzz:
	@grep -rno '^func Fuzz[A-Za-z0-9_]*' --include='*_test.go' --exclude-dir=tools --exclude-dir=bench . | \
	while IFS=: read -r file _ func; do \
		echo "$${func#func } ($${file%/*})"; \
		$(GO) test -run '^$$' -fuzz "^$${func#func }\$$" -fuzztime $(T) -fuzzminimizetime 100x "$${file%/*}" || exit 1; \
	done

# A seed that fails is printed with its schedule: bin/belfry sim run plays it.
sim:
	SEEDS=$(SEEDS) $(GO) test -count=1 -timeout 2h ./internal/sim

mutate: .bin/mutate
	@.bin/mutate

soak: deps
	$(MAKE) sim SEEDS=10000
	BELFRY_SOAK=1 $(GO) test -count=1 -timeout 60m ./internal/...
	BELFRY_TEST_SCRIPTS=all CGO_ENABLED=1 $(GO) test -race -count=1 -parallel 4 -timeout 60m ./cmd/belfry
	$(GO) test -count=1 -timeout 60m -run TestThreeNodesAddUp ./internal/event -town.seeds 1000000
	$(GO) test -tags soak -count=1 -timeout 6h -v -run '^TestSoak$$' ./cmd/belfry -rounds $(ROUNDS)

bench:
	$(MAKE) -C bench

stats: .bin/stats
	@.bin/stats

deps: .bin/deps
	@.bin/deps packaging/test-packages.txt base etcd

clean:
	rm -rf bin dist .bin/generated .bin/debian12 $(OURS)
	$(GO) clean -testcache

$(OURS):
	@$(GO) -C tools build -o ../$@ ./$(notdir $@)

# Pinned by tools/go.mod; built on first use, and again when the pins change.
# buf takes about 2 minutes on two cores, golangci-lint up to 6.
.bin/buf:                     tool := github.com/bufbuild/buf/cmd/buf
.bin/protoc-gen-go:           tool := google.golang.org/protobuf/cmd/protoc-gen-go
.bin/protoc-gen-go-grpc:      tool := google.golang.org/grpc/cmd/protoc-gen-go-grpc
.bin/protoc-gen-grpc-gateway: tool := github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway
.bin/golangci-lint:           tool := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
.bin/govulncheck:             tool := golang.org/x/vuln/cmd/govulncheck
.bin/nfpm:                    tool := github.com/goreleaser/nfpm/v2/cmd/nfpm
$(BUF) $(LINTER) .bin/govulncheck .bin/nfpm: tools/go.mod
	CGO_ENABLED=0 $(GO) -C tools build -o ../$@ $(tool)

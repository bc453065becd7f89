# Targets are listed by `make`. Everything here needs Go alone; the race
# detector also needs a C compiler, and is left out loudly where there is none.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help build demo test race short cover deadcode lint fuzz bench clean

# Without cgo the program is the same wherever it is built, and needs no C library.
build: ## build bin/village
	CGO_ENABLED=0 go build -o bin/ ./cmd/village

demo: build ## four hospitals in three nations train one model, on this machine
	bin/village demo

test: ## all tests, then those of what runs on several cores under the race detector
	go test ./...
	@$(MAKE) --no-print-directory race

# The rooms with goroutines of their own. protocol has none, which a test holds.
RACE := ./storage ./node ./node/records ./node/tasks ./node/exchange ./sim/cluster
race:
	@if command -v "$$(go env CC)" >/dev/null 2>&1; then \
		echo go test -race -short $(RACE); \
		CGO_ENABLED=1 go test -race -short $(RACE) && \
		CGO_ENABLED=1 go test -race -short -run OnAnyNumberOfCores ./sim; \
	else \
		echo "SKIPPED: the race tests, for there is no C compiler ($$(go env CC))"; \
	fi

# Beside what -short leaves out, one that the race detector is to see all the same.
short: ## most tests, in less than a minute on two cores
	go test -short -skip OnAnyNumberOfCores ./...

# Of what a package's own tests reach; daemons that a test starts do not count.
cover: ## all tests, with the coverage of each package and in all
	@mkdir -p bin
	go test -coverprofile=bin/cover.out ./...
	@go tool cover -func=bin/cover.out | tail -1

deadcode: ## functions that the program does not reach
	go tool deadcode ./...

lint: ## gofmt, go vet and staticcheck
	@unformatted=$$(gofmt -l cmd node protocol sim storage); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...

FUZZTIME ?= 10s
fuzz: ## every fuzz test for FUZZTIME (10s)
	@set -e; for pkg in $$(go list ./...); do \
		for name in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$name"; \
			go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$pkg; \
		done; \
	done

bench: ## every benchmark
	go test -run '^$$' -bench . -benchmem ./protocol/... ./storage/... ./sim/... ./node/exchange ./node/datasets

clean: ## remove what make build has made
	rm -rf bin

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

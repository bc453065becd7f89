#!/bin/sh
# Runs "village demo --faults" many times beside processes that keep every core busy,
# and tells how many runs failed: node/demo/busy.sh [RUNS] [BUSY]
set -u
runs=${1:-20} busy=${2:-8} failed=0 pids=
out=$(mktemp -d)
trap 'kill $pids 2>/dev/null; rm -rf "$out"' EXIT
trap 'exit 130' INT TERM
CGO_ENABLED=0 go build -o "$out/village" ./cmd/village || exit 1
for _ in $(seq "$busy"); do
	while :; do :; done &
	pids="$pids $!"
done
for run in $(seq "$runs"); do
	if "$out/village" demo --faults >"$out/log" 2>&1; then
		echo "run $run: done, $(grep 'training took' "$out/log")"
	else
		failed=$((failed + 1))
		echo "run $run: FAILED"
		tail -n 5 "$out/log"
	fi
done
echo "$failed of $runs runs failed beside $busy busy processes"
[ "$failed" -eq 0 ]

#!/bin/sh
# Loads a server for long with clients that come and go and with clients that
# read slowly, and looks each 10 s at its memory and its descriptors.
#
#   proactor/soak.sh 600 --recv multishot
#
# It needs release builds: cargo build --release -p proactor -p bench
set -eu
seconds=${1:?for how many seconds, and then the flags of the server}
shift
bin=${CARGO_TARGET_DIR:-target}/release
bench=${BENCH:-$bin/bench}
work=$(mktemp -d)
server= loads=
ends() {
    # shellcheck disable=SC2086
    kill $loads $server 2>/dev/null || true
    wait 2>/dev/null || true
    rm -r "$work"
}
trap ends EXIT
trap 'exit 1' INT TERM

"$bin/proactor" --addr 127.0.0.1:0 --watch off "$@" >"$work/out" 2>"$work/err" &
server=$!
until [ -s "$work/out" ]; do sleep 0.1; done
addr=$(sed -n 's/.* //p' "$work/out")

# Memory in KiB, and descriptors.
now() {
    memory=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$server/status")
    descriptors=$(find "/proc/$server/fd" -mindepth 1 | wc -l)
}
now
idle=$descriptors

load() {
    "$bench" load "$addr" --duration "${seconds}s" --patience 20s "$@" \
        >>"$work/loads" 2>&1 &
    loads="$loads $!"
}
load --rate 2000 --size 64:90,4KiB:9,256KiB:1 --churn 200
load --rate 2000 --connections 20 --messages-per-connection 5
load --rate 500 --connections 10 --slow-readers 20 --slow-rate 64KiB

echo "seconds KiB descriptors"
first= most=0 widest=0 past=0
while [ "$past" -lt "$seconds" ]; do
    sleep 10
    past=$((past + 10))
    now
    echo "$past $memory $descriptors"
    : "${first:=$memory}"
    last=$memory
    [ "$memory" -le "$most" ] || most=$memory
    [ "$descriptors" -le "$widest" ] || widest=$descriptors
done
failed=0
for load in $loads; do
    wait "$load" || failed=1
done
loads=
cat "$work/loads"
sleep 1
now
kill "$server"
wait "$server" || failed=1
server=
cat "$work/err"
echo "KiB: first $first, last $last, most $most"
echo "descriptors: $idle when idle, most $widest, $descriptors afterwards"
[ "$descriptors" -eq "$idle" ] || failed=1
exit $failed

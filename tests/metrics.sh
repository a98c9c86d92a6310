#!/bin/bash
# Holds the runtime's own metrics against the rules of Prometheus: metrics.sh BINARY.
# The aliases with vLLM's names break these rules, as their originals do.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v promtool >/dev/null; then
    echo 'promtool is not installed: metrics are not checked'
    exit
fi
work=$(mktemp --directory)
"$1" serve --model examples/tiny-llava/model --host 127.0.0.1 --port 0 >"$work/log" &
server=$!
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT
address=
for _ in $(seq 100); do
    address=$(sed -n 's/.*listening address=//p' "$work/log")
    if [ -n "$address" ] && curl --silent --fail "http://$address/ready" >/dev/null; then break; fi
    sleep 0.1
done
curl --silent --show-error --fail --output /dev/null --form prompt='What is this?' \
    --form image=@examples/tiny-llava/demo.png --form max_tokens=4 "http://$address/v1/chat/completions"
curl --silent --show-error --fail "http://$address/metrics" >"$work/all"
grep -E '^(# (HELP|TYPE) )?vlm_' "$work/all" >"$work/ours"
[ "$(grep --count '^# TYPE' "$work/ours")" -gt 20 ]
promtool check metrics <"$work/ours"
echo "$(grep --count '^# TYPE' "$work/ours") metrics by the rules"

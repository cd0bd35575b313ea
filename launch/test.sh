#!/usr/bin/env bash
# bash launch/test.sh            everything: lint, types, all tests, also those that start vLLM and whole runs
# bash launch/test.sh quick      lint, types and the tests that start neither: before each commit
# bash launch/test.sh ARG...     pytest alone with these arguments: launch/test.sh tests/recipe
#
# CASCADE_RL_TEST_WORKERS=N sets how many tests run at the same time (default: one per core, 4 GiB of memory each).
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# One test process per core, but no more than memory allows: each may hold a vLLM engine or a small group of ranks.
test_workers() {
    local cores memory_gib
    cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
    memory_gib=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo 2>/dev/null || echo 8)
    local most=$((memory_gib / 4))
    printf '%s' $((cores < most ? cores : (most > 1 ? most : 1)))
}

setup_environment test
cd "$ROOT"
if [ -z "${CASCADE_RL_SHARED_DATA:-}" ] && [ -d ../shared/data ]; then
    CASCADE_RL_SHARED_DATA=$(cd ../shared/data && pwd)
    export CASCADE_RL_SHARED_DATA
fi
selected=(-m "")
case ${1:-} in
    "") ;;
    quick) selected=(-m "not slow") ;;
    *) exec "$VENV/bin/python" -m pytest "$@" ;;
esac
say "== ruff"
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
say "== mypy"
"$VENV/bin/mypy"
say "== pytest"
# Whole files go to one process, which makes the engines and runs of a file once; tests/conftest.py sets their order.
exec "$VENV/bin/python" -m pytest "${selected[@]}" --durations=10 \
    --numprocesses "${CASCADE_RL_TEST_WORKERS:-$(test_workers)}" --dist loadfile --no-loadscope-reorder

#!/usr/bin/env bash
# All checks and tests, slow ones included. Arguments go to pytest, which then runs alone: launch/test.sh tests/recipe
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_environment test
cd "$ROOT"
if [ -z "${CASCADE_RL_SHARED_DATA:-}" ] && [ -d ../shared/data ]; then
    CASCADE_RL_SHARED_DATA=$(cd ../shared/data && pwd)
    export CASCADE_RL_SHARED_DATA
fi
if [ $# -gt 0 ]; then exec "$VENV/bin/python" -m pytest "$@"; fi
say "== ruff"
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
say "== mypy"
"$VENV/bin/mypy"
say "== pytest"
exec "$VENV/bin/python" -m pytest -m "" --durations=10

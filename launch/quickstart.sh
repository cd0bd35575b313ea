#!/usr/bin/env bash
# A whole cascade on this machine: sets up .venv, runs recipes/quickstart.yaml, prints the table and the report's place.
# Called again it goes on where it stopped, or says that all is done. --fresh starts anew.
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_environment
cd "$ROOT"
exec "$VENV/bin/cascade-rl" run recipes/quickstart.yaml "$@"

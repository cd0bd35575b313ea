#!/usr/bin/env bash
# A whole cascade on this machine: sets up .venv, runs recipes/quickstart.yaml, prints the table and the report's place.
# Called again it goes on where it stopped; where all is done it shows the table again. --fresh starts anew.
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_environment
cd "$ROOT"
exec "$VENV/bin/cascade-rl" run recipes/quickstart.yaml "$@"

"""Running in this process: what `cascade-rl run` prints around the orchestrator."""

from __future__ import annotations

import os
import time

from rich.console import Console

from cascade_rl.orchestrator.gates import GateShut
from cascade_rl.orchestrator.run import Wishes
from cascade_rl.orchestrator.run import run as run_cascade
from cascade_rl.orchestrator.supervisor import StageFailed
from cascade_rl.recipe import LoadedRecipe
from cascade_rl.report import load_run, print_matrix, write_report
from cascade_rl.store import Store
from cascade_rl.types import CascadeError


def run_here(loaded: LoadedRecipe, store: Store, wishes: Wishes) -> int:
    """Run as the supervisor of this rank; rank 0 talks, and ends with the table and the report, if there was work."""
    main = os.environ.get("RANK", "0") == "0"
    console = Console(soft_wrap=True, highlight=False)

    def say(text: str) -> None:
        if main:
            console.print(text, markup=False)

    started = time.monotonic()
    name, code, refused = wishes.branch or loaded.recipe.name, 1, False
    try:
        name, code = run_cascade(loaded, store, wishes, say)
    except CascadeError as error:
        refused = not isinstance(error, StageFailed | GateShut)
        raise
    finally:
        if main and not refused and store.read_run(name) is not None:
            _show(store, name, console)
    if main and code == 0:
        say(f"done in {time.monotonic() - started:.0f} s")
    return code


def _show(store: Store, name: str, console: Console) -> None:
    """The table and the report of what there is; a fault here must not hide how the run itself ended."""
    try:
        page = write_report(store.root, name)
        print_matrix(load_run(store.root, name), console)
        console.print(f"report: {os.path.relpath(page)}", markup=False)
    except (CascadeError, OSError, ValueError, KeyError) as error:
        console.print(f"the report could not be written: {type(error).__name__}: {error}", markup=False)

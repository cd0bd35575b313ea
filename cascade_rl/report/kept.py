"""Decides whether a new page may replace the one that is there: results may have been lost since that was written.

A page carries a record of what it shows, so the two can be compared item by item. A page that an earlier version wrote
has none: its table of measurements, and what a stage must have, are compared instead.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

from cascade_rl.report.load import RunView, StageView, readable_samples
from cascade_rl.report.matrix import MISSING, ROLLED_BACK
from cascade_rl.store.inspection import steps_text
from cascade_rl.store.results import results_in, whole_results
from cascade_rl.types import CascadeError

RECORD = re.compile(r'<script type="application/json" id="shown">(.*?)</script>', re.DOTALL)
KEYS: dict[str, type] = {
    "identity": str, "complete": bool, "ended": str, "metrics": int, "rollouts": list, "results": list,
}  # fmt: skip
"""What the record has of each stage, and the types of the values: whether it was complete, when its computation ended,
the number of steps with metrics, the steps whose rollouts are shown, the files of its measurements."""

Shown = dict[str, dict[str, Any]]
"""By stage."""


def record_of(view: RunView) -> str:
    """What a page of ``view`` shows, as a data block of the page, which browsers do not display."""
    text = json.dumps({row.name: _facts(row) for row in view.rows}).replace("<", "\\u003c")
    return f'<script type="application/json" id="shown">{text}</script>'


def refuse_to_lose(view: RunView, folder: Path) -> None:
    """Raise CascadeError if the page in the report's ``folder`` shows results that ``view`` has lost."""
    page = folder / "index.html"
    if not page.is_file():
        return
    text = page.read_text(encoding="utf-8", errors="replace")
    shown = _read(text)
    if shown is None:
        lines = [f"{row.name}: {line}" for row in view.rows for line in _losses_by_table(row, view, folder, text)]
    else:
        lines = [f"{row.name}: {line}" for row in view.rows for line in _losses(row, view, shown.get(row.name))]
    if not lines and not any(row.directory.is_dir() for row in view.rows) and _shows_anything(shown):
        lines = [f"{row.name}: the folder {row.directory} is gone" for row in view.rows]
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        raise CascadeError(
            f"results of run {view.name} are missing:\n{listed}\nThe page from before stays as it is: {page}. Restore "
            "the files, or have missing measurements made again (`cascade-rl run`), and start the command again. Or "
            "move the page away to have one of what is left."
        )


def _facts(row: StageView) -> dict[str, Any]:
    return {
        "identity": row.identity,
        "complete": row.status == "complete",
        "ended": _ended(row),
        "metrics": len(row.metrics),
        "rollouts": readable_samples(row) if row.samples else [],
        "results": whole_results(row.directory / "evals"),
    }


def _ended(row: StageView) -> str:
    """When the last attempt ended: a stage that was computed anew has another time, and may have other results."""
    return str(row.attempts[-1].get("ended", "")) if row.attempts else ""


def _read(page: str) -> Shown | None:
    """The record in the text of a page; None where it has none."""
    found = RECORD.search(page)
    try:
        record = json.loads(found[1]) if found else None
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and all(map(_fits, record.values())) else None


def _fits(facts: Any) -> bool:
    if not isinstance(facts, dict) or not all(isinstance(facts.get(key), kind) for key, kind in KEYS.items()):
        return False
    return all(type(step) is int for step in facts["rollouts"]) and all(type(name) is str for name in facts["results"])


def _shows_anything(shown: Shown | None) -> bool:
    return shown is None or any(facts["metrics"] or facts["results"] for facts in shown.values())


def _losses(row: StageView, view: RunView, before: dict[str, Any] | None) -> list[str]:
    """What a page with the record ``before`` shows of a finished stage and a new page would not."""
    if before is None or before["identity"] != row.identity or not before["complete"]:
        return []
    if row.lost:
        return row.problems or [f"it was complete, and is {row.status} now"]
    if row.status != "complete" or before["ended"] != _ended(row):
        return []
    now, found = _facts(row), []
    if now["metrics"] < before["metrics"]:
        path = row.directory / "metrics.jsonl"
        found.append(f"{path} has {now['metrics']} of the {before['metrics']} steps that the page shows")
    if gone := [step for step in before["rollouts"] if step not in now["rollouts"]]:
        found.append(f"{row.directory / 'rollouts'} has no whole rollouts of {steps_text(gone)}, which the page shows")
    lost = [name for name in before["results"] if name not in now["results"] and _is_shown(name, row, view)]
    return found + [f"{row.directory / 'evals' / name} is missing or damaged, and the page shows it" for name in lost]


def _is_shown(name: str, row: StageView, view: RunView) -> bool:
    """Whether a page of ``view`` shows the measurement in the file ``name``: a changed recipe measures others."""
    if row.measured_on_pairs:
        return True
    return name in {f"{benchmark}-{identity}.json" for benchmark, identity in view.benchmark_identities.items()}


def _losses_by_table(row: StageView, view: RunView, folder: Path, page: str) -> list[str]:
    """The same where the page has no record."""
    if row.lost:
        return row.problems or [f"it was complete, and is {row.status} now"]
    if row.status != "complete":
        return []
    found = []
    # A stage that is complete has taken at least one step.
    if not row.is_base and not row.metrics:
        found.append(f"{row.directory / 'metrics.jsonl'} has no metrics any more")
    if f"<code>{html.escape(row.identity)}</code>" in page:
        evals = row.directory / "evals"
        measured = {*row.measurements, *(result["benchmark"] for result in results_in(evals)[0])}
        lost = [name for name in _in_table(row, folder) if name in view.benchmarks and name not in measured]
        found += [f"{evals} has no result of {name} any more" for name in lost]
    return found


def _in_table(row: StageView, folder: Path) -> list[str]:
    """Benchmarks with a value for this stage in the table beside the page."""
    try:
        lines = (folder / "matrix.md").read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    _, *names = _cells(lines[0])
    for name, *cells in map(_cells, lines):
        if name.removesuffix(ROLLED_BACK) == row.name:
            return [benchmark for benchmark, cell in zip(names, cells, strict=False) if cell not in ("-", MISSING)]
    return []


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]

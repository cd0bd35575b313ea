"""Decides whether a new page may replace the one that is there: results may have been lost since that was written."""

from __future__ import annotations

import html
from pathlib import Path

from cascade_rl.report.load import RunView, StageView
from cascade_rl.report.matrix import ROLLED_BACK
from cascade_rl.store.results import results_in
from cascade_rl.types import CascadeError


def refuse_to_lose(view: RunView, folder: Path) -> None:
    """Raise CascadeError if the page in the report's ``folder`` shows results that ``view`` has lost."""
    page = folder / "index.html"
    if not page.is_file():
        return
    lines = [f"{row.name}: {line}" for row in view.rows for line in _losses(row, folder)]
    if not lines and not any(row.directory.is_dir() for row in view.rows):
        lines = [f"{row.name}: the folder {row.directory} is gone" for row in view.rows]
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        raise CascadeError(
            f"results of run {view.name} are missing:\n{listed}\nThe page from before stays as it is: {page}. Restore "
            "the files and start the command again, or move the page away to have one of what is left."
        )


def _losses(row: StageView, folder: Path) -> list[str]:
    if row.lost:
        return row.problems or [f"it was complete, and is {row.status} now"]
    if row.status != "complete":
        return []
    found = []
    # A stage that is complete has taken at least one step.
    if row.kind != "base" and not row.metrics:
        found.append(f"{row.directory / 'metrics.jsonl'} has no metrics any more")
    if _was_measured(row, folder) and not results_in(row.directory / "evals")[0]:
        found.append(f"{row.directory / 'evals'} has no results any more")
    return found


def _was_measured(row: StageView, folder: Path) -> bool:
    """Whether the page shows this very stage, by its identity, and a measurement in the table beside the page."""
    try:
        page = (folder / "index.html").read_text(encoding="utf-8", errors="replace")
        table = (folder / "matrix.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    if f"<code>{html.escape(row.identity)}</code>" not in page:
        return False
    for line in table.split("\n"):
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if name.removesuffix(ROLLED_BACK) == row.name:
            return any(cell != "-" for cell in cells)
    return False

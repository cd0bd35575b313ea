"""What a run did, to look at: figures, a page, the matrix."""

from __future__ import annotations

from pathlib import Path

from cascade_rl.report.load import RunView, load_run
from cascade_rl.report.matrix import markdown, print_matrix


def write_report(root: Path, run: str) -> Path:
    """See ``cascade_rl.report.page.write_report``; matplotlib is imported only when a report is made."""
    from cascade_rl.report.page import write_report as write

    return write(root, run)


__all__ = ["RunView", "load_run", "markdown", "print_matrix", "write_report"]

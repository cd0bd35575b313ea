"""The stage x benchmark matrix: what each stage gained, and what it forgot."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cascade_rl.report.load import Measurement, RunView


@dataclass(frozen=True)
class Cell:
    """One measurement beside those before it; all values from 0 to 1."""

    measured: Measurement
    delta: float | None
    """Against the measurement before."""
    forgotten: float | None
    """How far below the best so far, where that is more than chance (beyond the 95% interval of the difference)."""
    gate: str | None = None
    """What gates said: ``excepted``, ``warn``, ``stop`` or ``rollback`` (the gravest); None where all are open."""

    @property
    def mark(self) -> str:
        """``!`` beside a value that a gate shut on, ``~`` where an exception allowed it."""
        return "" if self.gate is None else "~" if self.gate == "excepted" else "!"


GRAVITY = ("excepted", "warn", "rollback", "stop")


def matrix(run: RunView) -> list[tuple[str, dict[str, Cell]]]:
    """Rows (base model first, then the stages) of cells by benchmark; what was not measured is absent.

    Later stages are not compared with one that was rolled back, since they do not come from it. A stage after one whose
    result is missing has no change: it would be the change of both.
    """
    said = {
        (d["stage"], d["benchmark"]): d["verdict"] for verdict in GRAVITY for d in run.gates if d["verdict"] == verdict
    }
    before: dict[str, Measurement] = {}
    best: dict[str, Measurement] = {}
    rows = []
    for stage in run.rows:
        cells = {}
        for name in run.benchmarks:
            measured = stage.measurements.get(name)
            if measured is None:
                if stage.lacks(name) and not stage.rolled_back:
                    before.pop(name, None)  # no later stage may be given the change of this one
                continue
            delta = measured.value - before[name].value if name in before else None
            cells[name] = Cell(measured, delta, _forgotten(measured, best.get(name)), said.get((stage.name, name)))
            if stage.rolled_back:
                continue
            before[name] = measured
            if name not in best or measured.value > best[name].value:
                best[name] = measured
        rows.append((stage.name, cells))
    return rows


def _forgotten(measured: Measurement, best: Measurement | None) -> float | None:
    if best is None:
        return None
    drop = best.value - measured.value
    noise = 1.96 * math.hypot(measured.stderr, best.stderr)
    return drop if drop > noise else None


def headline(run: RunView) -> str:
    """The largest gain of an RL stage in a sentence, or what is known instead."""
    gains = []
    rows = matrix(run)
    for stage, (name, cells) in zip(run.rows, rows, strict=True):
        if stage.samples and not stage.rolled_back:
            gains += [
                (cell.delta, name, benchmark, cell) for benchmark, cell in cells.items() if cell.delta is not None
            ]
    if not gains:
        done = sum(stage.status == "complete" for stage in run.stages)
        return f"{done} of {len(run.stages)} stages are complete; no RL stage is measured yet."
    delta, name, benchmark, cell = max(gains, key=lambda gain: gain[0])
    value = cell.measured.value
    verb = "lifted" if delta > 0 else "did not lift any benchmark;"
    return f"{name} {verb} {benchmark} from {100 * (value - delta):.1f}% to {100 * value:.1f}% ({100 * delta:+.1f})."


def print_matrix(run: RunView, console: Console) -> None:
    """The matrix on a terminal."""
    if not run.benchmarks:
        return
    table = Table(title=f"run {run.name}: accuracy after each stage, %", title_justify="left", box=None)
    table.add_column("stage", style="bold")
    for name in run.benchmarks:
        table.add_column(name, justify="right", min_width=len(name))
    for stage, (row, cells) in zip(run.rows, matrix(run), strict=True):
        values = (_rich(cells.get(name), stage.lacks(name)) for name in run.benchmarks)
        table.add_row(Text(row + ROLLED_BACK * stage.rolled_back), *values)
    console.print(table)
    for message in gate_lines(run):
        console.print(f"gate {message}", markup=False, highlight=False)


ROLLED_BACK = " (rolled back)"
MISSING = "missing"
"""Stands where a measurement was made and its result is gone or damaged."""


def gate_lines(run: RunView) -> list[str]:
    """What gates said, in words, where they are not simply open."""
    return [decision["message"] for decision in run.gates if decision["verdict"] != "pass"]


def _rich(cell: Cell | None, missing: bool) -> Text:
    if cell is None:
        return Text(MISSING, style="red") if missing else Text("-", style="dim")
    text = Text(f"{100 * cell.measured.value:.1f}")
    text.append(cell.mark, style="bold red" if cell.mark == "!" else "yellow")
    if cell.delta is not None:
        style = "red" if cell.forgotten else "green" if cell.delta > 0 else "dim"
        text.append(f"  {100 * cell.delta:+5.1f}", style=style)
    else:
        text.append("       ")
    return text


def markdown(run: RunView) -> str:
    """The matrix as a Markdown table, with 95% intervals."""
    lines = ["| stage | " + " | ".join(run.benchmarks) + " |", "|---|" + "---:|" * len(run.benchmarks)]
    for stage, (name, cells) in zip(run.rows, matrix(run), strict=True):
        texts = []
        for benchmark in run.benchmarks:
            cell = cells.get(benchmark)
            if cell is None:
                texts.append(MISSING if stage.lacks(benchmark) else "-")
                continue
            m = cell.measured
            text = f"{100 * m.value:.1f}{cell.mark}"
            if cell.delta is not None:
                text += f" ({100 * cell.delta:+.1f})"
            texts.append(f"{text} ± {50 * (m.high - m.low):.1f}")
        lines.append(f"| {name}{ROLLED_BACK * stage.rolled_back} | " + " | ".join(texts) + " |")
    gates = gate_lines(run)
    if gates:
        lines += ["", "A gate shut at `!`; an exception allowed `~`.", "", *(f"- {message}" for message in gates)]
    return "\n".join(lines) + "\n"

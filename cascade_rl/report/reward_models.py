"""A reward model's part of the report: its curves, how often it tells the better answer, and by how much."""

from __future__ import annotations

import html
import itertools
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from cascade_rl.report.figures import COLOURS, FAINT, look, save, smooth
from cascade_rl.report.load import StageView
from cascade_rl.store.results import results_in

CURVES = (
    ("loss", "loss, nats per pair", 1.0),
    ("accuracy", "pairs told right, %", 100.0),
    ("margin", "mean margin, chosen - rejected", 1.0),
)
RIGHT, WRONG = COLOURS[2], COLOURS[1]


def pair_results(stage: StageView) -> list[dict[str, Any]]:
    """What was measured on pairs, held-out ones first; damaged ones are left out."""
    found = [result for result in results_in(stage.directory / "evals")[0] if "margins" in result]
    return sorted(found, key=lambda result: (result["benchmark"] != "held-out", result["benchmark"]))


def curves_figure(stage: StageView, path: Path) -> Path | None:
    """Loss, accuracy and margin over the steps. None before the first."""
    if not stage.metrics:
        return None
    with look():
        figure, grid = plt.subplots(1, len(CURVES), figsize=(8.6, 2.2), layout="constrained")
        for axes, (key, title, scale) in zip(grid, CURVES, strict=True):
            steps, values = stage.series(key)
            scaled = [scale * value for value in values]
            axes.plot(steps, scaled, color=COLOURS[0], alpha=0.35 if len(steps) > 8 else 1, linewidth=1)
            if len(steps) > 8:
                axes.plot(steps, smooth(scaled), color=COLOURS[0])
            axes.set_title(title)
            axes.set_xlabel("step")
            if key == "accuracy":
                axes.axhline(50, color=FAINT, linewidth=0.8, linestyle=":")  # a coin
                axes.set_ylim(min([40.0, *scaled]), 101)
        return save(figure, path)


def margins_figure(results: list[dict[str, Any]], path: Path) -> Path | None:
    """Histograms of the margins, a panel per benchmark; what lies left of 0 is told wrong."""
    if not results:
        return None
    with look():
        figure, grid = plt.subplots(
            1, len(results), figsize=(max(4.3, min(8.6, 4.3 * len(results))), 2.3), squeeze=False, layout="constrained"
        )
        for axes, result in zip(grid[0], results, strict=True):
            edges, counts = result["margins"]["edges"], result["margins"]["counts"]
            middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
            colours = [RIGHT if middle > 0 else WRONG for middle in middles]
            axes.bar(middles, counts, width=edges[1] - edges[0], color=colours)
            axes.axvline(0, color=FAINT, linewidth=0.8)
            axes.set_title(f"{result['benchmark']}: {100 * result['value']:.1f}% right")
            axes.set_xlabel("margin, chosen - rejected")
        grid[0][0].set_ylabel("pairs")
        return save(figure, path)


def tables(results: list[dict[str, Any]]) -> str:
    """One table: each benchmark, its sections and its categories."""
    if not results:
        return ""
    rows = []
    for result in results:
        low, high = result["ci95"]
        rows.append(_row(f"<b>{html.escape(result['benchmark'])}</b>", result, 50 * (high - low)))
        rows += [_row(f"&emsp;section {html.escape(name)}", facts) for name, facts in result["sections"].items()]
        rows += [
            _row(f"&emsp;{html.escape(name)}", facts, 196 * facts["stderr"])
            for name, facts in result["categories"].items()
        ]
    return (
        '<p class="soft">Pairs whose chosen answer scores higher, in % (ties count half), ± half of the 95% interval. '
        "Where there are sections, the value is the mean over them.</p>"
        f'<div class="scroll"><table><tr><th>pairs</th><th>right</th><th>mean margin</th><th>number</th></tr>'
        f"{''.join(rows)}</table></div>"
    )


def _row(label: str, facts: dict[str, Any], half: float | None = None) -> str:
    interval = "" if half is None else f" <small>± {half:.1f}</small>"
    margin = f"{facts['margin']:.2f}" if "margin" in facts else ""
    cells = (label, f"{100 * facts['value']:.1f}{interval}", margin, str(facts["rows"]))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"

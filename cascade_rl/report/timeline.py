"""Who worked and who waited within a step: drawn from a stage's ``trace.jsonl``, one row per lane and rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from cascade_rl.json_lines import records
from cascade_rl.report.figures import FAINT, LANES, look, save
from cascade_rl.report.load import StageView
from cascade_rl.store import StageFolder

RANKS = 4
"""Ranks drawn, at most."""

Spans = list[tuple[str, float, float]]
"""Lane, start and end in seconds since the step began."""
Trace = dict[int, dict[int, Spans]]
"""Step -> rank -> spans."""


def read_trace(path: Path) -> Trace:
    """All steps of a ``trace.jsonl``. A damaged line is skipped; of two for one step and rank the later counts."""
    trace: Trace = {}
    try:
        lines = records(path)
    except OSError:
        return {}
    for record in lines:
        try:
            spans = [(str(lane), float(start), float(end)) for lane, start, end in record["spans"]]
            step, rank = int(record["step"]), int(record["rank"])
        except (ValueError, KeyError, TypeError, OverflowError):
            continue
        if all(math.isfinite(start) and math.isfinite(end) for _, start, end in spans):
            trace.setdefault(step, {})[rank] = spans
    return {step: ranks for step, ranks in sorted(trace.items()) if duration(ranks) > 0}


def duration(ranks: dict[int, Spans]) -> float:
    """Seconds until the last span of the last rank has ended."""
    return max((end for spans in ranks.values() for _, _, end in spans), default=0.0)


def median_step(trace: Trace) -> int:
    """The step of median duration; of an even number of steps, the shorter of the two in the middle."""
    ordered = sorted(trace, key=lambda step: (duration(trace[step]), step))
    return ordered[(len(ordered) - 1) // 2]


def merged(spans: Spans, lane: str) -> list[tuple[float, float]]:
    """When ``lane`` was busy, as (start, length) without overlaps."""
    found: list[list[float]] = []
    for start, end in sorted((start, end) for name, start, end in spans if name == lane):
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([start, end])
    return [(start, end - start) for start, end in found]


def timeline_figure(stage: StageView, path: Path) -> Path | None:
    """The step of median duration and the last one. None where nothing was traced."""
    trace = read_trace(StageFolder(stage.directory).trace)
    if not trace:
        return None
    steps = list(dict.fromkeys((median_step(trace), max(trace))))
    rows = [_rows(trace[step]) for step in steps]
    with look():
        figure, grid = plt.subplots(
            len(steps), 1, figsize=(8.6, 0.9 * len(steps) + 0.17 * sum(map(len, rows))), squeeze=False,
            gridspec_kw={"height_ratios": [len(r) for r in rows]}, layout="constrained",
        )  # fmt: skip
        for axes, step, places in zip(grid[:, 0], steps, rows, strict=True):
            _draw(axes, trace[step], places)
            which = "the last" if step == max(trace) else "of median duration"
            shown = f", {RANKS} of {len(trace[step])} ranks" if len(trace[step]) > RANKS else ""
            axes.set_title(f"{stage.name}: step {step}, {which}, {duration(trace[step]):.1f} s{shown}")
        grid[-1, 0].set_xlabel("seconds since the step began")
        return save(figure, path)


def _rows(ranks: dict[int, Spans]) -> list[tuple[int, str]]:
    """(rank, lane) of each row, from top to bottom."""
    there = {lane for spans in ranks.values() for lane, _, _ in spans}
    lanes = [lane for lane in LANES if lane in there] + sorted(there - set(LANES))
    return [(rank, lane) for rank in sorted(ranks)[:RANKS] for lane in lanes]


def _draw(axes: Any, ranks: dict[int, Spans], rows: Sequence[tuple[int, str]]) -> None:
    for place, (rank, lane) in enumerate(rows):
        if place and rank != rows[place - 1][0]:
            axes.axhline(place - 0.5, color=FAINT, linewidth=0.4)
        axes.broken_barh(merged(ranks[rank], lane), (place - 0.36, 0.72), color=LANES.get(lane, LANES["other"]))
    several = len({rank for rank, _ in rows}) > 1
    labels = [f"{lane}  (rank {rank})" if several else lane for rank, lane in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.tick_params(length=0)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, duration(ranks))

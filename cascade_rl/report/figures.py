"""The report's figures: matplotlib, one look for all."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import matplotlib.ticker

from cascade_rl.report.load import RunView, StageView
from cascade_rl.store.files import publishing_file

# Okabe and Ito's palette: distinguishable with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, FAINT = "#22272E", "#8A929C"


@contextlib.contextmanager
def look() -> Iterator[None]:
    with plt.rc_context(
        {
            "figure.dpi": 160,
            "figure.facecolor": "white",
            "font.size": 9,
            "font.family": "DejaVu Sans",
            "axes.edgecolor": FAINT,
            "axes.labelcolor": INK,
            "axes.linewidth": 0.6,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 9,
            "axes.titlelocation": "left",
            "xtick.color": FAINT,
            "ytick.color": FAINT,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "text.color": INK,
            "lines.linewidth": 1.6,
        }
    ):
        yield


def save(figure: Any, path: Path) -> Path:
    with publishing_file(path) as temporary:
        figure.savefig(temporary, bbox_inches="tight")
    plt.close(figure)
    return path


@dataclass(frozen=True)
class _Span:
    """Where a stage lies on the cascade's axis."""

    stage: StageView
    start: float
    end: float


def _spans(run: RunView) -> list[_Span]:
    """Stages that have begun: those that sample at one scale of steps; SFT stages, whose steps mean something else, at
    one narrow width."""
    begun = [stage for stage in run.stages if stage.config or stage.metrics or stage.measurements]
    rl_steps = sum(_planned(s) for s in begun if s.samples)
    narrow = max(1.0, 0.16 * rl_steps) if rl_steps else 1.0
    spans, at = [], 0.0
    for stage in begun:
        if stage.measured_on_pairs:
            continue  # a side branch, which the benchmarks do not see
        width = float(_planned(stage)) if stage.samples else narrow
        spans.append(_Span(stage, at, at + width))
        at += width
    return spans


def _planned(stage: StageView) -> int:
    return int(stage.config.get("steps") or stage.steps or 1)


def cascade_figure(run: RunView, path: Path) -> Path | None:
    """Every benchmark through the whole cascade. None where nothing was measured."""
    if not any(row.measurements for row in run.rows):
        return None
    spans = _spans(run)
    with look():
        figure, axes = plt.subplots(figsize=(8.6, 3.9))
        for number, span in enumerate(spans):
            axes.axvspan(span.start, span.end, color=span.stage.of_kind.BAND, zorder=0)
            if number:
                axes.axvline(span.start, color="white", linewidth=2, zorder=1)
            label = span.stage.name + "\n(rolled back)" * span.stage.rolled_back
            axes.text((span.start + span.end) / 2, 1.02, label, transform=axes.get_xaxis_transform(),
                      ha="center", va="bottom", fontsize=9, fontweight="bold")  # fmt: skip
        ends: list[tuple[float, str, str]] = []
        for index, name in enumerate(run.benchmarks):
            colour = COLOURS[index % len(COLOURS)]
            last = _draw_benchmark(axes, run, spans, name, colour)
            if last is not None:
                ends.append((last, name, colour))
        right = spans[-1].end if spans else 1.0
        for y, (value, name, colour) in zip(_apart([e[0] for e in ends], 6.0), ends, strict=True):
            axes.annotate(
                f"{name}  {value:.1f}",
                (right, y),
                xytext=(9, 0),
                textcoords="offset points",
                color=colour,
                va="center",
                fontsize=8.5,
                fontweight="bold",
                annotation_clip=False,
            )
        _cascade_axes(axes, spans, right)
        return save(figure, path)


def _draw_benchmark(axes: Any, run: RunView, spans: list[_Span], name: str, colour: str) -> float | None:
    xs: list[float] = []
    ys: list[float] = []
    marks: list[tuple[float, Any]] = []
    if name in run.base.measurements:
        marks.append((0.0, run.base.measurements[name]))
        xs, ys = [0.0], [100 * run.base.measurements[name].value]
    for span in spans:
        if span.stage.rolled_back:  # a point beside the line: nothing went on from there
            if name in span.stage.measurements:
                marks.append((span.end, span.stage.measurements[name]))
            continue
        steps, values = span.stage.series(f"eval/{name}")
        scale = (span.end - span.start) / max(1, _planned(span.stage))
        xs += [span.start + step * scale for step in steps]
        ys += [100 * value for value in values]
        if name in span.stage.measurements:
            measured = span.stage.measurements[name]
            marks.append((span.end, measured))
            xs.append(span.end)
            ys.append(100 * measured.value)
    if not xs:
        return None
    axes.plot(xs, ys, color=colour, zorder=3)
    for x, measured in marks:
        axes.errorbar(
            x,
            100 * measured.value,
            [[100 * (measured.value - measured.low)], [100 * (measured.high - measured.value)]],
            color=colour,
            marker="o",
            markersize=5,
            capsize=2.5,
            elinewidth=1,
            zorder=4,
            clip_on=False,
        )
    return ys[-1]


def _apart(values: list[float], gap: float) -> list[float]:
    """Label heights near ``values`` that do not overlap."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    heights = list(values)
    for lower, upper in itertools.pairwise(order):
        heights[upper] = max(heights[upper], heights[lower] + gap)
    return heights


def _cascade_axes(axes: Any, spans: list[_Span], right: float) -> None:
    axes.set_xlim(0, right * 1.004)
    axes.set_ylim(0, 100)
    axes.set_ylabel("accuracy, %")
    axes.grid(axis="y", color="white", linewidth=0.8)
    ticks: dict[float, str] = {}
    done = 0
    for span in spans:
        if span.stage.samples:
            planned, wide = _planned(span.stage), (span.end - span.start) / right > 0.25
            within = matplotlib.ticker.MaxNLocator(4, integer=True).tick_values(0, planned) if wide else []
            for step in (0, *(s for s in within if 0 < s < planned), planned):
                ticks[span.start + step * (span.end - span.start) / planned] = f"{done + step:g}"
            done += planned
    places: list[float] = []
    for place in sorted(ticks, reverse=True):  # the last one stays; of others those that leave room for its text
        if not places or places[-1] - place > 0.025 * right:
            places.append(place)
    axes.set_xticks(places, [ticks[place] for place in places])
    axes.set_xlabel("steps of RL and distillation (SFT stages are drawn at a fixed width)" if done else "stages")
    axes.tick_params(length=0)


def rl_figure(stage: StageView, path: Path) -> Path | None:
    """The curves of a stage that samples, three in a row. None before its first step."""
    if not stage.metrics:
        return None
    panels = stage.of_kind.PANELS
    rows = math.ceil(len(panels) / 3)
    with look():
        figure, grid = plt.subplots(rows, 3, figsize=(8.6, 1.95 * rows), layout="constrained", squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, (key, title, scale) in zip(grid.flat, panels, strict=False):
            steps, values = stage.series(key)
            scaled = [scale * value for value in values]
            axes.plot(steps, scaled, color=COLOURS[0], alpha=0.35 if len(steps) > 8 else 1, linewidth=1)
            if len(steps) > 8:
                axes.plot(steps, smooth(scaled), color=COLOURS[0])
            axes.set_title(title)
            positive = [v for v in scaled if v > 0]
            if key.endswith("gap_mean") and positive:
                axes.set_yscale("log")
                # Whole decades: what matters is the order of magnitude, not its noise.
                axes.set_ylim(
                    10 ** math.floor(math.log10(min(positive))), 10 ** (math.floor(math.log10(max(positive))) + 1)
                )
            elif scaled:
                low, high = min(scaled), max(scaled)
                # A curve below zero (an advantage) is drawn up to it: there is nothing to gain beyond.
                top = high * 1.15 if high > 0 else 1 if low >= 0 else 0
                if title.endswith("%"):  # one rollout of hundreds is no event
                    top = max(top, 5)
                axes.set_ylim(0 if low >= 0 else None, top)
        for axes in grid[-1]:
            axes.set_xlabel("step")
        return save(figure, path)


def loss_figure(stages: list[StageView], path: Path) -> Path | None:
    """The first curve, the loss, of ``stages`` of a kind, side by side. None where none has a step."""
    stages = [stage for stage in stages if stage.metrics]
    if not stages:
        return None
    with look():
        figure, grid = plt.subplots(1, len(stages), figsize=(4.3 * len(stages), 2.2), squeeze=False, sharey=True,
                                    layout="constrained")  # fmt: skip
        for axes, stage in zip(grid[0], stages, strict=True):
            panel = stage.of_kind.PANELS[0]
            steps, values = stage.series(panel.metric)
            scaled = [panel.scale * value for value in values]
            axes.plot(steps, scaled, color=COLOURS[0], alpha=0.35, linewidth=0.8)
            axes.plot(steps, smooth(scaled), color=COLOURS[0])
            axes.set_title(f"{stage.name}: {panel.title}")
            axes.set_xlabel("step")
            if any(value > 0 for value in scaled):
                axes.set_yscale("log")
        return save(figure, path)


LANES = {
    "sync": COLOURS[3],
    "generate": COLOURS[0],
    "reward": COLOURS[2],
    "wait for rewards": COLOURS[4],
    "ask teachers": COLOURS[5],
    "reference": COLOURS[5],
    "train": COLOURS[1],
    "save": COLOURS[6],
    "other": "#D0D4DA",
}
"""What the time of a step goes into, in the order it is drawn, and its colour in every figure."""
TIMES = {
    "sync": "time/sync_s",
    "generate": "time/rollout_s",
    "wait for rewards": "time/reward_wait_s",
    "ask teachers": "time/teacher_s",
    "train": "time/train_s",
}
"""Metric of those that are metrics."""


def time_figure(stages: list[StageView], path: Path) -> Path | None:
    """Where an RL step's seconds go, median over the stage's steps."""
    stages = [stage for stage in stages if stage.metrics]
    if not stages:
        return None
    with look():
        figure, axes = plt.subplots(figsize=(8.6, 0.7 + 0.45 * len(stages)))
        times = {lane: key for lane, key in TIMES.items() if any(stage.series(key)[1] for stage in stages)}
        for row, stage in enumerate(stages):
            medians = {lane: _median(stage.series(key)[1]) for lane, key in times.items()}
            medians["other"] = max(0.0, _median(stage.series("time/step_s")[1]) - sum(medians.values()))
            left = 0.0
            for lane, value in medians.items():
                axes.barh(row, value, left=left, color=LANES[lane], height=0.55, label=lane if row == 0 else None)
                left += value
        axes.set_yticks(range(len(stages)), [stage.name for stage in stages])
        axes.invert_yaxis()
        axes.set_xlabel("seconds per step (median)")
        axes.legend(ncols=6, frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0))
        return save(figure, path)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


def smooth(values: list[float], weight: float = 0.8) -> list[float]:
    """Exponential moving average, unbiased at the start."""
    smoothed, total, norm = [], 0.0, 0.0
    for value in values:
        total, norm = weight * total + value, weight * norm + 1
        smoothed.append(total / norm)
    return smoothed

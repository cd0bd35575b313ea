"""One self-contained page: inline style, figures as data URIs, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cascade_rl.report import reward_models
from cascade_rl.report.figures import cascade_figure, loss_figure, rl_figure, time_figure
from cascade_rl.report.gates import gates_section
from cascade_rl.report.kept import record_of, refuse_to_lose
from cascade_rl.report.load import RunView, StageView, load_run, rollouts_of, sample_steps
from cascade_rl.report.matrix import MISSING, ROLLED_BACK, Cell, headline, markdown, matrix
from cascade_rl.report.timeline import timeline_figure
from cascade_rl.store.files import write_text
from cascade_rl.store.rollouts import details_text
from cascade_rl.types import CascadeError

SAMPLES = 3
"""Prompts shown per RL stage."""


def write_report(root: Path, run: str) -> Path:
    """Write runs/<run>/report/index.html with its figures and matrix.md; returns the page's path.

    What is missing or damaged is named. Raises CascadeError when there is no such run, and where a page is there that
    shows more: results that were lost since would be lost with it.
    """
    view = load_run(root, run)
    folder = root / "runs" / run / "report"
    refuse_to_lose(view, folder)
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    sections = [
        _header(view),
        _problems(view),
        _image(cascade_figure(view, figures / "cascade.png"), "every benchmark through the cascade"),
        _matrix(view),
        gates_section(view),
        _lineage(view),
        *_losses(view, figures),
        *(_reward_model(stage, figures) for stage in view.stages if stage.measured_on_pairs),
        *(_rl(stage, figures) for stage in view.stages if stage.samples),
        _times(view, figures),
        _reproduce(view),
        record_of(view),
    ]
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    page = template.replace("@TITLE@", html.escape(f"{view.name} - Cascade RL"))
    write_text(folder / "matrix.md", markdown(view))
    write_text(folder / "index.html", page.replace("@BODY@", "\n".join(filter(None, sections))))
    return folder / "index.html"


def _problems(view: RunView) -> str:
    lines = [f"{stage.name}: {problem}" for stage in view.rows for problem in stage.problems]
    if not lines:
        return ""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<h2>Missing or damaged</h2><ul>{items}</ul>"


def _header(view: RunView) -> str:
    seconds = sum(stage.seconds for stage in view.rows)
    return (
        f"<h1>{html.escape(view.name)}</h1>"
        f'<p class="soft">{html.escape(view.model)} · seed {view.seed} · {len(view.stages)} stages · '
        f"{_duration(seconds)} of training · {html.escape(view.updated)}</p>"
        f'<p class="headline">{html.escape(headline(view))}</p>'
    )


def _image(path: Path | None, alt: str) -> str:
    if path is None:
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def _matrix(view: RunView) -> str:
    if not view.benchmarks:
        return '<p class="soft">The recipe measures nothing: it has no <code>evaluate</code> section.</p>'
    head = "".join(f"<th>{html.escape(name)}</th>" for name in view.benchmarks)
    rows = "".join(
        f"<tr><td>{html.escape(name)}{ROLLED_BACK * stage.rolled_back}</td>"
        f"{''.join(_cell(cells.get(b), stage.lacks(b)) for b in view.benchmarks)}</tr>"
        for stage, (name, cells) in zip(view.rows, matrix(view), strict=True)
    )
    return (
        "<h2>After each stage</h2>"
        '<p class="soft">Accuracy in %, ± half of the 95% interval, and the change since the stage before. '
        "Red is forgetting: below the best so far by more than chance. "
        f"{'A gate shut at !; an exception allowed ~. ' * any(d['verdict'] != 'pass' for d in view.gates)}</p>"
        f'<div class="scroll"><table><tr><th>stage</th>{head}</tr>{rows}</table></div>'
    )


def _cell(cell: Cell | None, missing: bool) -> str:
    if cell is None and missing:
        return f'<td class="down">{MISSING}</td>'
    if cell is None:
        return '<td class="soft">not measured</td>'
    m = cell.measured
    mark = f'<b class="{"down" if cell.mark == "!" else "soft"}" title="gate: {cell.gate}">{cell.mark}</b>' * bool(
        cell.mark
    )
    text = f"{100 * m.value:.1f}{mark} <small>± {50 * (m.high - m.low):.1f}</small>"
    if cell.delta is not None:
        kind = "down" if cell.forgotten else "up" if cell.delta > 0 else "soft"
        text += f' <span class="{kind}">{100 * cell.delta:+.1f}</span>'
    return f"<td>{text}</td>"


def _lineage(view: RunView) -> str:
    nodes = []
    for stage in view.rows:
        attempts = len(stage.attempts)
        facts = f"{stage.steps} steps, {_duration(stage.seconds)}" if stage.metrics else _duration(stage.seconds)
        again = f", {attempts} attempts" if attempts > 1 else ""
        origin = f"from {html.escape(stage.parent)}" if stage.parent else html.escape(view.model)
        state = html.escape(stage.status) + ", rolled back by a gate" * stage.rolled_back
        nodes.append(
            f'<div class="node {html.escape(stage.status)}"><b>{html.escape(stage.name)}</b>'
            f"<code>{html.escape(stage.identity)}</code><br>"
            f'<span class="soft">{origin}<br>{state}{again}<br>{facts}</span></div>'
        )
    errors = "".join(
        f"<details open><summary>{html.escape(s.name)} failed</summary><pre>{html.escape(a['error'])}</pre></details>"
        for s in view.rows
        if s.status == "failed"
        for a in s.attempts[-1:]
        if a.get("error")
    )
    return f'<h2>Lineage</h2><div class="chain">{"".join(nodes)}</div>{errors}'


def _losses(view: RunView, figures: Path) -> Iterator[str]:
    """For each kind that neither samples nor is measured on pairs, the losses of its stages."""
    stages = [stage for stage in view.stages if not stage.samples and not stage.measured_on_pairs]
    for kind in dict.fromkeys(stage.kind for stage in stages):
        chosen = [stage for stage in stages if stage.kind == kind]
        title = chosen[0].of_kind.TITLE or kind
        image = _image(loss_figure(chosen, figures / f"{kind}.png"), f"{title}: loss")
        if image:
            yield f"<h2>{html.escape(title)}</h2>{image}"


def _reward_model(stage: StageView, figures: Path) -> str:
    results = reward_models.pair_results(stage)
    curves = _image(
        reward_models.curves_figure(stage, figures / f"reward-model-{stage.name}.png"), f"curves of {stage.name}"
    )
    margins = _image(
        reward_models.margins_figure(results, figures / f"margins-{stage.name}.png"), f"margins of {stage.name}"
    )
    if not curves:
        curves = f"<p class='soft'>{html.escape(stage.status)}: no step yet.</p>"
    return f"<h2>{html.escape(stage.name)}</h2>{curves}{reward_models.tables(results)}{margins}"


def _rl(stage: StageView, figures: Path) -> str:
    image = _image(rl_figure(stage, figures / f"rl-{stage.name}.png"), f"curves of {stage.name}")
    if not image:
        return f"<h2>{html.escape(stage.name)}</h2><p class='soft'>{html.escape(stage.status)}: no step yet.</p>"
    note = "<p class='soft'>Thin: each step; thick: a running average over about five.</p>"
    return f"<h2>{html.escape(stage.name)}</h2>{image}{note}{_samples(stage)}"


def _samples(stage: StageView) -> str:
    """Rollouts side by side: the best and the worst of a prompt whose group did not agree, first and last step."""
    parts = []
    for step in sample_steps(stage):
        groups: dict[str, list[dict[str, Any]]] = {}
        try:
            for row in rollouts_of(stage, step):
                groups.setdefault(row["prompt_id"], []).append(row)
        except CascadeError as error:
            parts.append(f"<h3>Rollouts of step {step}</h3><p class='soft'>{html.escape(str(error))}</p>")
            continue
        ordered = sorted(groups.values(), key=lambda g: -(max(r["value"] for r in g) - min(r["value"] for r in g)))
        parts.append(f"<h3>Rollouts of step {step}</h3>")
        for group in ordered[:SAMPLES]:
            best, worst = max(group, key=lambda r: r["value"]), min(group, key=lambda r: r["value"])
            mean = sum(r["value"] for r in group) / len(group)
            shown = [best] if best["value"] == worst["value"] else [best, worst]
            parts.append(
                f"<details><summary>{html.escape(_short(best['prompt']))} "
                f'<span class="tag">{len(group)} rollouts, mean {mean:.2f}</span></summary>'
                f'<div class="pair">{"".join(_rollout(row) for row in shown)}</div></details>'
            )
    return "".join(parts)


def _rollout(row: dict[str, Any]) -> str:
    details = details_text(row)
    error = f"<pre>{html.escape(row['error'])}</pre>" if row["error"] else ""
    return (
        f'<div><span class="tag">score {row["value"]:g}</span> '
        f'<span class="tag">{row["length"]} tokens, {html.escape(row["stop"])}</span>'
        f"<pre>{html.escape(row['completion'])}</pre>"
        f'<p class="soft">{html.escape(details)}</p>{error}</div>'
    )


def _times(view: RunView, figures: Path) -> str:
    stages = [stage for stage in view.stages if stage.samples]
    image = _image(time_figure(stages, figures / "time.png"), "time of an RL step")
    timelines = "".join(
        _image(timeline_figure(stage, figures / f"timeline-{stage.name}.png"), f"timeline of {stage.name}")
        for stage in stages
    )
    if timelines:
        timelines = (
            '<p class="soft">Who worked and who waited, from the sync to the optimizer step (records and states are '
            "written after it). Rows that overlap ran at the same time; <i>wait for rewards</i>: nothing was left to "
            f"generate or to train on, and scores were still to come.</p>{timelines}"
        )
    return f"<h2>Where the time goes</h2>{image}{timelines}" if image else ""


def _reproduce(view: RunView) -> str:
    versions = next((s.versions for s in reversed(view.rows) if s.versions), {})
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    command = f"cascade-rl run {view.recipe_path}"
    return (
        f"<h2>Again</h2><pre>{html.escape(command)}</pre>"
        f'<p class="soft">The resolved recipe is <code>recipe.yaml</code>, one folder up. '
        f"{html.escape(text)}</p>"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _short(text: str, limit: int = 90) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"

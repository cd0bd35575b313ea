"""One benchmark on one engine: sample, grade, aggregate; goes on from its own samples file after an interruption."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cascade_rl.json_lines import line_of, records
from cascade_rl.recipe import BenchmarkConfig
from cascade_rl.rewarding import Scorer
from cascade_rl.rollout.engine import Engine, Request, request_seed
from cascade_rl.types import Prompt, Rollout, Score


@dataclass(frozen=True)
class Sample:
    """One graded completion of one row."""

    row: int
    index: int
    value: float
    length: int
    truncated: bool
    error: str | None
    completion: str


@dataclass(frozen=True)
class Question:
    """A benchmark row, rendered."""

    row: int
    prompt: Prompt
    token_ids: tuple[int, ...]


def measure(
    engine: Engine,
    scorer: Scorer,
    config: BenchmarkConfig,
    questions: Sequence[Question],
    *,
    seed: int,
    done: Iterable[Sample] = (),
    on_sample: Callable[[Sample], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Sample]:
    """Every (row, sample) of ``questions`` not in ``done``, graded; returned with those done, sorted.

    The same seed, row and sample index draw the same completion from the same weights, whenever and however often.
    """
    samples = {(s.row, s.index): s for s in done}
    by_row = {question.row: question for question in questions}
    requests = [
        Request(
            prompt_id=str(question.row),
            index=index,
            prompt_token_ids=question.token_ids,
            seed=request_seed(seed, "evaluation", config.name, question.prompt.id, index),
            sampling=config.sampling,
        )
        for question in questions
        for index in range(config.samples)
        if (question.row, index) not in samples
    ]
    waiting: list[tuple[Rollout, Future[Score]]] = []

    def settle(everything: bool) -> None:
        for entry in list(waiting):
            rollout, future = entry
            if everything or future.done():
                sample = _sample(int(rollout.prompt_id), rollout, future.result())
                samples[sample.row, sample.index] = sample
                on_sample(sample)
                waiting.remove(entry)

    for rollout in engine.generate(requests, should_stop):
        waiting.append((rollout, scorer.submit(by_row[int(rollout.prompt_id)].prompt, rollout)))
        settle(everything=False)
    settle(everything=True)
    return sorted(samples.values(), key=lambda s: (s.row, s.index))


def _sample(row: int, rollout: Rollout, score: Score) -> Sample:
    return Sample(
        row, rollout.index, float(score.value), len(rollout.token_ids), rollout.truncated, score.error, rollout.text
    )


def aggregate(samples: Sequence[Sample], config: BenchmarkConfig) -> dict[str, Any]:
    """avg@n with a 95% interval, and pass@k.

    The standard error is that of the mean over rows of each row's mean: samples of one row are not independent.
    Samples whose grader failed are left out and counted.
    """
    rows: dict[int, list[float]] = {}
    for sample in samples:
        if sample.error is None:
            rows.setdefault(sample.row, []).append(sample.value)
    means = [sum(values) / len(values) for values in rows.values()]
    count = len(means)
    value = sum(means) / count if count else math.nan
    variance = sum((m - value) ** 2 for m in means) / (count - 1) if count > 1 else 0.0
    stderr = math.sqrt(variance / count) if count else math.nan
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= config.samples]
    return {
        "benchmark": config.name,
        "value": value,
        "stderr": stderr,
        "ci95": _within_range(value - 1.96 * stderr, value + 1.96 * stderr, means),
        "rows": count,
        "samples": config.samples,
        "pass_at_k": {str(k): pass_at_k([v for v in rows.values() if len(v) >= k], k) for k in ks},
        "errors": sum(s.error is not None for s in samples),
        "truncated": sum(s.truncated for s in samples) / max(1, len(samples)),
        "mean_length": sum(s.length for s in samples) / max(1, len(samples)),
    }


def _within_range(low: float, high: float, means: Sequence[float]) -> list[float]:
    """Shares lie between 0 and 1; other scores lie where they lie."""
    return [max(0.0, low), min(1.0, high)] if all(0 <= mean <= 1 for mean in means) else [low, high]


def pass_at_k(rows: Sequence[Sequence[float]], k: int) -> float:
    """Unbiased estimate that at least one of k samples is right: 1 - C(n-c, k) / C(n, k), averaged over rows.

    rows: [P][n] values, right is 1 (Chen et al. 2021, arXiv 2107.03374, equation 1).
    """
    if not rows:
        return math.nan
    total = 0.0
    for values in rows:
        n, correct = len(values), sum(v >= 1.0 for v in values)
        total += 1.0 - math.comb(n - correct, k) / math.comb(n, k)
    return total / len(rows)


def read_samples(path: Path) -> list[Sample]:
    """Samples written so far. A line torn by a kill is ignored, and its sample is drawn again."""
    if not path.is_file():
        return []
    samples = []
    for record in records(path):
        try:
            samples.append(Sample(**record))
        except TypeError:
            continue
    return samples


def append_sample(file: Any, sample: Sample) -> None:
    """One line, at once on its way to the disk: a sample of 64,000 tokens is not to be lost with a buffer."""
    file.write(line_of(asdict(sample)))
    file.flush()

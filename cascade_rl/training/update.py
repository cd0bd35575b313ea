"""One optimizer step: a single forward and backward pass over each rollout, whenever it comes."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cascade_rl.algorithms.logprobs import TokenScores
from cascade_rl.algorithms.objective import on_support
from cascade_rl.training.packing import MicroBatch
from cascade_rl.training.policy import Policy

TokenLoss = Callable[[MicroBatch, slice, Tensor, Tensor], Tensor]
"""(row, part of its trained tokens, log-probs [n], entropy [n]) -> unnormalised loss terms [n]. The row's engine
log-probs of that part are on the support of ``log-probs``: at the sampling temperature, over the whole vocabulary."""
Screen = Callable[[MicroBatch, TokenScores], dict[str, Tensor]]
"""(row, scores of its N trained tokens) -> fields of the row, [N] each, with their values for the loss: what is known
only once whole rollouts have been seen."""
Measures = Callable[[MicroBatch, TokenScores], dict[str, Tensor]]
"""(row, scores) -> name -> [N] values whose mean is a metric: over tokens with an advantage, or, for names that
begin with ``loss/``, over all tokens of the loss."""
Taught = Callable[[MicroBatch], Tensor]
"""(row) -> [N] bool: the tokens that metrics of policy, sampling and mismatch are measured on."""


@dataclass(frozen=True)
class UpdateStats:
    """Over all ranks. ``loss`` is divided by the step's denominator; entropy, gaps and ``measures`` are means over the
    tokens measured (``Taught``), and NaN where there is none."""

    loss: float
    entropy: float
    logprob_gap_mean: float
    """Mean |trainer - engine| log-prob: the two must describe the same policy."""
    logprob_gap_max: float
    trained_tokens: int
    denominator: float
    """What the summed gradient is to be divided by."""
    worst: str = ""
    """The token on which trainer and engine are furthest apart, in words."""
    measures: dict[str, float] = field(default_factory=dict)
    """Means of what the update's ``measures`` gave."""
    taught_gap_mean: float = math.nan
    taught_gap_max: float = math.nan
    """As ``logprob_gap_mean`` and ``_max``, which are over all tokens of the passes, but over the tokens measured."""

    def metrics(self) -> dict[str, float]:
        """By the names of metrics.jsonl."""
        return {
            "loss": self.loss,
            "policy/entropy": self.entropy,
            "sampling/logprob_gap_mean": self.taught_gap_mean,
            "sampling/logprob_gap_max": self.taught_gap_max,
            "tokens/trained": self.trained_tokens,
            **self.measures,
        }


class Update:
    """The gradient of one step, row by row; then ``stats``, and ``policy.step(stats.denominator)`` applies it.

    ``engine_temperature`` is that of the engine's log-probs (1 when it reports raw ones).
    """

    def __init__(
        self,
        policy: Policy,
        loss: TokenLoss,
        *,
        engine_temperature: float,
        on_row: Callable[[], object] = lambda: None,
        screen: Screen | None = None,
        measures: Measures | None = None,
        taught: Taught = lambda row: torch.ones_like(row.advantages, dtype=torch.bool),
    ) -> None:
        """``on_row`` is called after each row. With ``screen`` each row is scored before its forward and backward
        pass: one more forward pass, for what must see whole rollouts first. ``taught`` chooses the tokens that are
        measured, from rows as they come, before ``screen``; default: all."""
        self._policy, self._loss, self._on_row = policy, loss, on_row
        self._screen, self._measures, self._taught = screen, measures, taught
        self._engine_temperature = engine_temperature
        self._totals = torch.zeros(4, dtype=torch.float64)  # loss, gap, tokens, tokens measured; of this rank
        self._measured: dict[str, float] = {}
        self._largest_gap, self._worst = 0.0, ""
        self._largest_taught_gap = 0.0

    def add(self, rows: Iterable[MicroBatch]) -> None:
        """Forward and backward over each row; gradients are left on the parameters, summed and not yet divided."""
        for row in rows:
            row = row.to(self._policy.ranks.device)
            taught = self._taught(row)
            row = self._screened(row)
            loss, scores = self._policy.backward(row, functools.partial(self._terms, row))
            ours = scores.logprobs if self._engine_temperature == row.temperature else scores.raw_logprobs
            gap = (ours - row.engine_logprobs).abs()
            self._totals += torch.tensor(
                [loss, float(gap.double().sum()), len(gap), int(taught.sum())], dtype=torch.float64
            )
            if len(gap):  # none in a row that only keeps collective passes in step
                self._note_largest(row, ours, gap)
                self._measure(row, scores, gap, taught)
            self._on_row()

    def _screened(self, row: MicroBatch) -> MicroBatch:
        if self._screen is None:
            return row
        scores = self._policy.score(row)
        comparable = self._comparable(row, slice(None), scores.logprobs, scores.raw_logprobs)
        return dataclasses.replace(row, **self._screen(comparable, scores))

    def _measure(self, row: MicroBatch, scores: TokenScores, gap: Tensor, taught: Tensor) -> None:
        found = {ENTROPY: scores.entropy, GAP: gap}
        if self._measures is not None:
            comparable = self._comparable(row, slice(None), scores.logprobs, scores.raw_logprobs)
            found |= self._measures(comparable, scores)
        for name, values in found.items():
            over = values if _is_of_the_loss(name) else values[taught]
            self._measured[name] = self._measured.get(name, 0.0) + float(over.double().sum())
        if bool(taught.any()):
            self._largest_taught_gap = max(self._largest_taught_gap, float(gap[taught].nan_to_num(nan=torch.inf).max()))

    def _note_largest(self, row: MicroBatch, ours: Tensor, gap: Tensor) -> None:
        gap = gap.nan_to_num(nan=torch.inf)
        where = int(gap.argmax())
        if float(gap[where]) > self._largest_gap or not self._worst:
            self._largest_gap = float(gap[where])
            self._worst = (
                f"token {int(row.targets[where])}, log-prob {float(ours[where]):.6g} by the trainer, "
                f"{float(row.engine_logprobs[where]):.6g} by the engine"
            )

    def _terms(self, row: MicroBatch, part: slice, logprobs: Tensor, entropy: Tensor, raw: Tensor) -> Tensor:
        return row.weights[part] * self._loss(self._comparable(row, part, logprobs, raw), part, logprobs, entropy)

    def _comparable(self, row: MicroBatch, part: slice, logprobs: Tensor, raw: Tensor) -> MicroBatch:
        """The row, its engine log-probs of ``part`` on the support of ``logprobs``."""
        if self._engine_temperature == row.temperature:
            return row
        engine = row.engine_logprobs.clone()
        engine[part] = on_support(engine[part], logprobs, raw)
        return dataclasses.replace(row, engine_logprobs=engine)

    def stats(self, denominator: float | None = None) -> UpdateStats:
        """Of all rows of all ranks so far. A collective call. ``denominator``: default their number of tokens."""
        ranks = self._policy.ranks
        loss, gap, trained, taught = ranks.sum(self._totals.to(ranks.device)).tolist()
        tokens = max(1.0, trained)  # none at all where every rollout was filtered out
        divisor = tokens if denominator is None else denominator
        shares = ranks.gather((self._largest_gap, self._worst, self._measured, self._largest_taught_gap))
        largest, worst = max(share[:2] for share in shares)
        # Some ranks may have had no row, and so know no names.
        sums = [measured for _, _, measured, _ in shares]
        means = {
            name: sum(of.get(name, 0.0) for of in sums) / (tokens if _is_of_the_loss(name) else taught or math.nan)
            for share in sums
            for name in share
        }
        return UpdateStats(
            loss=loss / divisor,
            entropy=means.pop(ENTROPY, math.nan),
            logprob_gap_mean=gap / tokens,
            logprob_gap_max=largest,
            trained_tokens=int(trained),
            denominator=divisor,
            worst=worst,
            taught_gap_mean=means.pop(GAP, math.nan),
            taught_gap_max=max(share[-1] for share in shares) if taught else math.nan,
            measures=means,
        )


ENTROPY, GAP = "entropy", "gap"


def _is_of_the_loss(name: str) -> bool:
    """Whether a measure is about all that is trained on, whether it has an advantage or not."""
    return name.startswith("loss/")

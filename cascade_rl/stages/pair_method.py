"""Bradley-Terry on packed pairs, as a method of the offline loop.

    loss = mean over the pairs of the batch of  - log sigmoid(chosen - rejected) + centering * (chosen + rejected)^2

A score is one number, a linear head on the last hidden state of the end-of-turn token of (question, answer), thinking
left out (arXiv 2512.13607, section 5). The mean is over the pairs of all rows of all ranks, however they are cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from cascade_rl.algorithms.bradley_terry import pair_losses, pair_sums
from cascade_rl.evals.pairs import JudgedPair
from cascade_rl.stages.context import Context
from cascade_rl.stages.offline.method import StepStats
from cascade_rl.stages.pair_scores import judge
from cascade_rl.stages.pairs import TokenPair
from cascade_rl.training.packing import MicroBatch
from cascade_rl.training.scoring import TrainedRewardModel, pair_sequences


class Pairs(Protocol):
    """Pairs by number."""

    def __getitem__(self, number: int, /) -> TokenPair: ...


class PairMethod:
    """The pairs of a stage and what is learned from them (an ``OfflineMethod``)."""

    def __init__(
        self,
        context: Context,
        model: TrainedRewardModel,
        pairs: Pairs,
        trained: Sequence[int],
        held_out: Sequence[int],
        *,
        budget: int,
        centering: float = 0.0,
    ) -> None:
        """``trained`` and ``held_out``: numbers of ``pairs``. ``budget``: tokens of a packed row."""
        self._context, self._model, self._pairs = context, model, pairs
        self._trained, self._held_out = trained, held_out
        self._budget, self._centering = budget, centering
        self._judged: list[JudgedPair] | None = None

    @property
    def count(self) -> int:
        return len(self._trained)

    def rows(self, examples: Sequence[int]) -> list[MicroBatch]:
        ranks = self._context.ranks
        mine = [self._pairs[self._trained[example]] for example in examples[ranks.rank :: ranks.world_size]]
        sequences = [side for pair in mine for side in pair_sequences(pair.chosen_ids, pair.rejected_ids)]
        return self._model.rows(sequences, self._budget)

    def update(self) -> PairUpdate:
        self._judged = None
        return PairUpdate(self._model, self._centering)

    def evaluate(self) -> dict[str, float]:
        return held_out_metrics(self.judged(), self._centering) if self._held_out else {}

    def judged(self) -> list[JudgedPair]:
        """The held-out pairs with their scores by the weights as they are. A collective call."""
        if self._judged is None:
            self._judged = judge(self._context, self._model, [self._pairs[row] for row in self._held_out], self._budget)
        return self._judged


class PairUpdate:
    """The gradient of one step, row by row (a ``StepUpdate``)."""

    def __init__(self, model: TrainedRewardModel, centering: float) -> None:
        self._model, self._centering = model, centering
        self._sums = {"pairs": 0.0, "tokens/total": 0.0, "tokens/trained": 0.0, **pair_sums(torch.empty(0))}

    def add(self, row: MicroBatch) -> None:
        scores = self._model.backward(row, lambda scores: pair_losses(scores, self._centering).sum()).cpu()
        found = {"tokens/total": float(row.input_ids.shape[1])}
        if self._model.reports:
            found |= {"pairs": len(scores) / 2, "tokens/trained": float(row.sequence_lengths[: len(scores)].sum())}
            found |= pair_sums(scores, self._centering)
        for name, value in found.items():
            self._sums[name] += value

    def stats(self) -> StepStats:
        ranks = self._model.ranks
        summed = ranks.sum(torch.tensor(list(self._sums.values()), dtype=torch.float64, device=ranks.device)).tolist()
        found = dict(zip(self._sums, summed, strict=True))
        pairs = found.pop("pairs")
        means = {name: value if name.startswith("tokens/") else value / pairs for name, value in found.items()}
        return StepStats(means.pop("loss"), pairs, means)


def held_out_metrics(judged: Sequence[JudgedPair], centering: float) -> dict[str, float]:
    """``eval/loss``, ``eval/accuracy``, ``eval/margin`` and ``eval/score/mean`` over ``judged``, as in training."""
    sums = pair_sums(torch.tensor([[pair.chosen, pair.rejected] for pair in judged]).double().view(-1), centering)
    return {f"eval/{name}": value / len(judged) for name, value in sums.items()}

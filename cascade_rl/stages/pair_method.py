"""Bradley-Terry on packed pairs, as a method of the offline loop.

    loss = mean over the pairs of the batch of  - log sigmoid(chosen - rejected) + centering * (chosen + rejected)^2

A score is one number, a linear head on the last hidden state of the end-of-turn token of (question, answer), thinking
left out (arXiv 2512.13607, section 5). The mean is over the pairs of all rows of all ranks, however they are cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cascade_rl.algorithms.bradley_terry import pair_losses, pair_sums
from cascade_rl.evals.pairs import JudgedPair
from cascade_rl.stages.context import Context
from cascade_rl.stages.offline.method import StepStats
from cascade_rl.stages.pair_scores import judge
from cascade_rl.stages.pairs import TokenPair
from cascade_rl.training.packing import MicroBatch
from cascade_rl.training.scoring import TrainedRewardModel, pair_sequences


class PairMethod:
    """The pairs of a stage and what is learned from them (an ``OfflineMethod``)."""

    def __init__(
        self,
        context: Context,
        model: TrainedRewardModel,
        pairs: Any,
        trained: Sequence[int],
        held_out: Sequence[int],
        *,
        budget: int,
        centering: float = 0.0,
    ) -> None:
        """``pairs``: rows with ``chosen_ids``, ``rejected_ids`` and ``category``; ``trained`` and ``held_out`` are
        numbers of its rows. ``budget``: tokens of a packed row."""
        self._context, self._model, self._pairs = context, model, pairs
        self._trained, self._held_out = trained, held_out
        self._budget, self._centering = budget, centering

    @property
    def count(self) -> int:
        return len(self._trained)

    def rows(self, examples: Sequence[int]) -> list[MicroBatch]:
        ranks = self._context.ranks
        mine = [self._trained[example] for example in examples[ranks.rank :: ranks.world_size]]
        sequences = [
            side
            for row in mine
            for side in pair_sequences(self._pairs[row]["chosen_ids"], self._pairs[row]["rejected_ids"])
        ]
        return self._model.rows(sequences, self._budget)

    def update(self) -> PairUpdate:
        return PairUpdate(self._model, self._centering)

    def evaluate(self) -> dict[str, float]:
        if not self._held_out:
            return {}
        judged = judge(self._context, self._model, self.held_out(), self._budget)
        return held_out_metrics(judged, self._centering)

    def held_out(self) -> list[TokenPair]:
        """The pairs that are not trained on."""
        columns = ("chosen_ids", "rejected_ids", "category")
        return [TokenPair(**{key: self._pairs[row][key] for key in columns}) for row in self._held_out]


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

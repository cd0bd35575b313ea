"""A reward model in training: a scalar head, read at the last token of each sequence of a packed row.

The two sides of a pair lie next to each other in one row, chosen first, so that their loss needs no other row. What
they have in common at their beginning goes through the layers once, as the prompt of rollouts does (``sharing``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from cascade_rl.recipe import LoraConfig, OptimizerConfig, ShardingConfig
from cascade_rl.training.attention import choose_attention
from cascade_rl.training.balance import TokenCost, balanced_rows
from cascade_rl.training.forward import hidden_states
from cascade_rl.training.packing import MicroBatch, TrainingSequence, pack_row
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.reward_model import load_reward_model
from cascade_rl.training.root import Outputs, Root
from cascade_rl.training.trained_model import DDP, TrainedModel
from cascade_rl.training.ulysses import Together

ScoreTerms = Callable[[Tensor], Tensor]
"""(scores [S] of a row's sequences) -> their summed loss, differentiable."""


def pair_sequences(chosen: Sequence[int], rejected: Sequence[int], label: str = "") -> list[TrainingSequence]:
    """The two sides of a pair, with the tokens that both begin with as their prompt; each keeps one of its own."""
    both: list[numpy.ndarray] = [numpy.asarray(ids, numpy.int32) for ids in (chosen, rejected)]
    shortest = min(map(len, both)) - 1
    differ = numpy.flatnonzero(both[0][:shortest] != both[1][:shortest])
    common = int(differ[0]) if len(differ) else shortest
    zeros: list[numpy.ndarray] = [numpy.zeros(len(ids) - common, numpy.float32) for ids in both]
    return [
        TrainingSequence(ids[:common], ids[common:], none, none, label=label)
        for ids, none in zip(both, zeros, strict=True)
    ]


def scored_row(row: MicroBatch) -> MicroBatch:
    """``row`` with its head at the last token of each sequence, instead of before each trained token.

    Every sequence has a trained token, so that it ends a segment; a row of nothing to learn has no score.
    """
    count = len(row.labels) if len(row.predictors) else 0
    ends = row.cu_seq_lens[1 : count + 1].long() - 1
    nothing = torch.zeros(count)
    return dataclasses.replace(
        row,
        predictors=ends,
        targets=row.input_ids[0, ends],
        advantages=nothing,
        engine_logprobs=nothing,
        weights=nothing,
        reference_logprobs=None,
        labels=row.labels[:count],
        trained=None,
    )


class ScoredModel(Root):
    """A one-label classifier as a function of a packed row: (loss | None, scores [S]), S the sequences of the row.

    Where ranks share a row's tokens (``together``), each gets the scores of all of the row's sequences: the other
    ranks' as constants, so that the gradients of the ranks add up to that of the row's loss.
    """

    def __init__(
        self, model: Any, *, half: bool, offload_activations: bool = False, together: Together | None = None
    ) -> None:
        super().__init__(model, half=half, offload_activations=offload_activations)
        self._together = together

    def forward(self, batch: MicroBatch, terms: ScoreTerms | None = None) -> Outputs:
        with self._offloading(batch, terms):
            hidden = hidden_states(self.model, batch, half=self._half)
        scores = self.model.score(hidden).squeeze(-1)
        if self._together is not None and batch.is_cut:
            scores = self._together.completed(scores, *_share(batch))
        return None if terms is None else terms(scores).to(scores.dtype), scores.detach()


def _share(batch: MicroBatch) -> tuple[int, int]:
    """Of a row that is cut: how many of its sequences end before this rank's tokens, and how many it has in all."""
    count = len(batch.labels)
    ends = batch.cu_seq_lens[1 : count + 1] - 1
    return int((ends < batch.first).sum()), count


class TrainedRewardModel(TrainedModel):
    """A one-label sequence classifier with AdamW on one device per rank."""

    unit = 2

    def __init__(
        self,
        checkpoint: str,
        config: OptimizerConfig,
        *,
        ranks: Ranks,
        dtype: str,
        pad_token_id: int,
        total_steps: int,
        gradient_checkpointing: bool = False,
        sharding: ShardingConfig = DDP,
        lora: LoraConfig | None = None,
        seed: int = 0,
    ) -> None:
        """``checkpoint``: a language model, which gets a head drawn from ``seed``, or a classifier (see
        ``load_reward_model``). With ``lora`` adapters are trained, and the head as a whole. A collective call."""
        model = load_reward_model(
            checkpoint,
            ranks.device,
            seed,
            pad_token_id,
            attention=choose_attention(ranks.device),
            keep_on_cpu=sharding.strategy != "ddp",
        )
        half = dtype == "bfloat16"
        super().__init__(
            model,
            lambda together: ScoredModel(
                model, half=half, offload_activations=sharding.offload_activations, together=together
            ),
            config,
            ranks=ranks,
            half=half,
            total_steps=total_steps,
            gradient_checkpointing=gradient_checkpointing,
            sharding=sharding,
            lora=lora,
            seed=seed,
        )

    @property
    def reports(self) -> bool:
        """Whether this rank is the one of those that share its rows whose scores are to be counted."""
        return self.ranks.rank % self._together == 0

    def row(self, sequences: Sequence[TrainingSequence]) -> MicroBatch:
        """One row of ``sequences``, in their order, scored at their ends."""
        return scored_row(super().row(sequences))

    @torch.no_grad()
    def score(self, batch: MicroBatch) -> Tensor:
        """Scores [S] of the sequences of one row, without gradient. A collective call where passes are."""
        return self.sharding.run(batch.to(self.ranks.device), None)[1]

    def backward(self, batch: MicroBatch, terms: ScoreTerms) -> Tensor:
        """One forward and one backward pass over a packed row: the gradient of ``terms`` of its scores is added to what
        this step has so far. Returns the scores [S]."""
        loss, scores = self.sharding.run(batch.to(self.ranks.device), terms)
        assert loss is not None
        self.sharding.backward(loss)
        return scores


class WholeRewardModel:
    """A classifier that every rank holds whole, on packed rows, without gradient."""

    reports = True

    def __init__(self, model: Any, ranks: Ranks, *, half: bool) -> None:
        """``model``: from ``load_reward_model``; from now on its attention is that of packed rows."""
        model.set_attn_implementation(choose_attention(ranks.device))
        self.model, self._ranks = model, ranks
        self._root, self._cost = ScoredModel(model, half=half), TokenCost.of(model)

    def rows(self, sequences: Sequence[TrainingSequence], budget: int) -> list[MicroBatch]:
        """See ``TrainedModel.rows``; the sequences are pairs."""
        return balanced_rows(
            self._ranks, sequences, self._cost, budget, unit=2, make=lambda those: scored_row(pack_row(those))
        )

    @torch.no_grad()
    def score(self, batch: MicroBatch) -> Tensor:
        """Scores [S] of the sequences of one row."""
        return self._root(batch.to(self._ranks.device))[1]

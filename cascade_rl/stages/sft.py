"""The SFT stage: the mean of -log p over the trained tokens of a batch.

    loss = sum over trained tokens of w * -log p(token | the tokens before it in its row) / sum of w

w is 1 (``loss.aggregate: token``), or 1 / n for a row of n trained tokens (``sequence``). Sum and divisor are those of
the whole batch, never of a row, a micro-batch or a rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import pyarrow
import torch
from torch import Tensor

from cascade_rl.algorithms.logprobs import TokenScores
from cascade_rl.algorithms.losses import rollout_weight
from cascade_rl.recipe import SftLossConfig, SftStage
from cascade_rl.stages.checkpoints.handover import load_tokenizer
from cascade_rl.stages.context import Context
from cascade_rl.stages.offline.batches import steps_of
from cascade_rl.stages.offline.dataset import remove_tokenised, tokenised
from cascade_rl.stages.offline.evaluation import remove_best
from cascade_rl.stages.offline.held_out import split
from cascade_rl.stages.offline.method import StepStats
from cascade_rl.stages.offline.setup import carry_out
from cascade_rl.stages.policies import make_policy, publish_policy
from cascade_rl.stages.sft_rows import SCHEMA, held_out_rows, training_rows
from cascade_rl.training.packing import MicroBatch, TrainingSequence
from cascade_rl.training.policy import Policy


@dataclass(frozen=True)
class Examples:
    """Rows ``indices`` of a table of token ids (``sft_rows.SCHEMA``)."""

    table: pyarrow.Table
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def sequence(self, example: int, aggregate: str) -> TrainingSequence:
        """Example number ``example``, weighted as ``aggregate`` says."""
        prompt, completion = (
            self.table[name][self.indices[example]].values.to_numpy() for name in ("prompt_ids", "completion_ids")
        )
        nothing: numpy.ndarray = numpy.zeros(
            len(completion), numpy.float32
        )  # no engine drew these tokens, no reward judged them
        weight = rollout_weight(len(completion), aggregate)  # type: ignore[arg-type]
        return TrainingSequence(prompt, completion, nothing, nothing, weight)


class Sft:
    """See ``offline.method.OfflineMethod``."""

    def __init__(self, policy: Policy, config: SftStage, examples: Examples, held_out: Examples) -> None:
        self._policy, self._budget = policy, config.tokens_per_micro_batch
        self._aggregate = (config.loss or SftLossConfig()).aggregate
        self._examples, self._held_out = examples, held_out

    @property
    def count(self) -> int:
        return len(self._examples)

    def rows(self, examples: Sequence[int]) -> list[MicroBatch]:
        return self._packed(self._examples, examples)

    def update(self) -> SftUpdate:
        return SftUpdate(self._policy)

    def evaluate(self) -> dict[str, float]:
        if not len(self._held_out):
            return {}
        sums = Sums(self._policy)
        for row in self._packed(self._held_out, range(len(self._held_out))):
            scores = self._policy.score(row)
            sums.add(row, float(-(row.weights.to(scores.logprobs) * scores.logprobs).double().sum()), scores)
        stats = sums.stats()
        return {"eval/loss": stats.loss, "eval/token_accuracy": stats.metrics["token_accuracy"]}

    def _packed(self, of: Examples, numbers: Sequence[int]) -> list[MicroBatch]:
        """This rank hands in its share of the examples; which rank trains on which follows from their lengths."""
        ranks = self._policy.ranks
        mine = numbers[ranks.rank :: ranks.world_size]
        return self._policy.rows([of.sequence(number, self._aggregate) for number in mine], self._budget)


class Sums:
    """What rows add up to, over all ranks once ``stats`` is called."""

    def __init__(self, policy: Policy) -> None:
        self._ranks = policy.ranks
        self._totals = torch.zeros(6, dtype=torch.float64)

    def add(self, row: MicroBatch, loss: float, scores: TokenScores) -> None:
        """A row whose weighted terms of the loss have the sum ``loss``."""
        self._totals += torch.tensor(
            [
                loss,
                float(row.weights.double().sum()),
                float(scores.entropy.double().sum()),
                float(scores.is_top.sum()),
                len(row.targets),
                row.input_ids.numel(),
            ],
            dtype=torch.float64,
        )

    def stats(self) -> StepStats:
        """A collective call."""
        loss, weight, entropy, top, tokens, positions = self._ranks.sum(self._totals.to(self._ranks.device)).tolist()
        denominator = float(round(weight))  # 1 / n is rounded, and n of them add up to 1 nearly
        return StepStats(
            loss=loss / denominator,
            denominator=denominator,
            metrics={
                "token_accuracy": top / tokens,
                "policy/entropy": entropy / tokens,
                "tokens/total": positions,
                "tokens/trained": tokens,
            },
        )


class SftUpdate:
    """See ``offline.method.StepUpdate``."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self._sums = policy, Sums(policy)

    def add(self, row: MicroBatch) -> None:
        weights = row.weights.to(self._policy.ranks.device)

        def terms(part: slice, logprobs: Tensor, entropy: Tensor, raw: Tensor) -> Tensor:
            return -weights[part] * logprobs

        self._sums.add(row, *self._policy.backward(row, terms))

    def stats(self) -> StepStats:
        return self._sums.stats()


def examples_of(context: Context, config: SftStage) -> tuple[Examples, Examples]:
    """(examples to train on, held-out examples). A collective call."""
    assert context.job.checkpoint is not None
    _, template = load_tokenizer(context.job.checkpoint, context.job.template)
    table = tokenised(context, SCHEMA, training_rows(context, config, template))
    if isinstance(config.held_out, int):
        keys, owners = table["key"].to_pylist(), table["conversation"].to_pylist()
        trained, apart = split(keys, owners, config.held_out, context.job.stage_seed, "rows")
        return Examples(table, trained), Examples(table, apart)
    everything = Examples(table, range(len(table)))
    if not config.held_out_sources:
        return everything, Examples(table, [])
    other = tokenised(context, SCHEMA, held_out_rows(context, config, template), "held-out")
    return everything, Examples(other, range(len(other)))


def run(context: Context) -> None:
    """Train the stage of ``context.job`` and publish its checkpoint."""
    config = context.job.stage_config()
    assert isinstance(config, SftStage)
    assert context.job.checkpoint is not None
    if config.trainer == "trl":
        from cascade_rl.stages.trl import sft as by_trl

        by_trl.run(context, config)
        return
    tokenizer, template = load_tokenizer(context.job.checkpoint, context.job.template)
    examples, held_out = examples_of(context, config)
    steps = steps_of(config, len(examples))
    policy = make_policy(context, config, steps)
    done = carry_out(context, config, policy, Sft(policy, config, examples, held_out), steps)
    publish_policy(context, policy, tokenizer, template)
    if context.ranks.is_main:
        remove_best(done)
        remove_tokenised(context)
    context.ranks.barrier()

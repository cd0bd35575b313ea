"""What a recipe's ``loss`` and ``mismatch`` sections mean for rows of rollouts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cascade_rl.algorithms.losses import Aggregate, rollout_weight, step_denominator
from cascade_rl.algorithms.objective import Objective
from cascade_rl.recipe import RlStage
from cascade_rl.recipe.learning import LossConfig, MismatchConfig
from cascade_rl.training.packing import MicroBatch
from cascade_rl.training.update import Screen


@dataclass(frozen=True)
class StageLoss:
    """A ``TokenLoss`` (cascade_rl.training.update), and what goes with it: weights, denominator, metrics, masks."""

    objective: Objective
    aggregate: Aggregate
    fixed_length: int

    @classmethod
    def of(cls, config: RlStage) -> StageLoss:
        """As the stage's recipe asks; without sections it is the mean over tokens of -A log pi."""
        loss, mismatch = config.loss or LossConfig(), config.mismatch or MismatchConfig()
        objective = Objective(
            on_policy=(config.updates_per_batch or 1) == 1,
            clip_low=loss.clip_low,
            clip_high=loss.clip_high,
            kl=loss.kl,
            kl_estimator=loss.kl_estimator,
            entropy=loss.entropy,
            cap=mismatch.cap,
            mask=mismatch.mask,
            low=mismatch.low,
            high=mismatch.high,
        )
        return cls(objective, loss.aggregate, loss.fixed_length or config.rollout.max_new_tokens)

    @property
    def needs_reference(self) -> bool:
        """Whether rows must carry the reference model's log-probs, at the sampling temperature."""
        return self.objective.kl > 0

    def __call__(self, row: MicroBatch, part: slice, logprobs: Tensor, entropy: Tensor) -> Tensor:
        """Loss terms [n] of the tokens ``part`` of ``row``; engine log-probs are on the support of ``logprobs``."""
        reference = None if row.reference_logprobs is None else row.reference_logprobs[part]
        return self.objective(row.advantages[part], row.engine_logprobs[part], reference, logprobs, entropy)

    def weight(self, length: int) -> float:
        """``TrainingSequence.weight`` of a rollout of ``length`` trained tokens."""
        return rollout_weight(length, self.aggregate)

    def denominator(self, tokens: int, rollouts: int) -> float:
        """Of a step (or of one of its updates) with so many trained tokens and rollouts over all ranks."""
        return step_denominator(self.aggregate, tokens=tokens, rollouts=rollouts, fixed_length=self.fixed_length)

    @property
    def screen(self) -> Screen | None:
        """For ``Update``: advantages 0 in the rollouts that ``mask: geometric`` leaves out. None for other masks, which
        see a token at a time and need no look at the row before the loss."""
        return self._without_masked_rollouts if self.objective.masks_rollouts else None

    def _without_masked_rollouts(self, row: MicroBatch, logprobs: Tensor) -> Tensor:
        return row.advantages * self.objective.kept(logprobs, row.engine_logprobs, row.lengths)

    @staticmethod
    def taught(row: MicroBatch) -> Tensor:
        """For ``Update``: [N] bool, the tokens with an advantage. These are the same tokens whether or not a KL penalty
        or an entropy bonus has the others go through the policy as well."""
        return row.advantages != 0

    def measures(self, row: MicroBatch, logprobs: Tensor) -> dict[str, Tensor]:
        """For ``Update``: [N] each, see ``Objective.measures``."""
        return self.objective.measures(
            row.advantages, row.engine_logprobs, row.reference_logprobs, logprobs, row.lengths
        )

"""Reinforcement learning from rewards: ``kind: rl``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from cascade_rl.recipe.kinds.base import Found, Panel, UserFunction
from cascade_rl.recipe.kinds.rollout import GAP, LENGTHS, RolloutStage
from cascade_rl.recipe.methods import AdvantageConfig, Curriculum, DynamicSampling, LossConfig, checked_advantage
from cascade_rl.recipe.parts import RewardConfig
from cascade_rl.recipe.problems import Misfit


class RlStage(RolloutStage):
    """Strictly on-policy GRPO: one optimizer step per batch of rollouts (P1 section 4)."""

    ALSO_CALLED = ("grpo", "ppo", "rloo", "dapo", "rlhf", "rlvr")
    BAND = "#FFF4E3"
    PANELS = (
        Panel("reward/mean", "reward, mean of the step"),
        *LENGTHS,
        Panel("groups/zero_variance", "groups without variance, %", 100.0),
        GAP,
    )
    kind: Literal["rl"] = "rl"
    reward: RewardConfig | None = None
    rewards: dict[str, RewardConfig] = {}
    """Instead of ``reward``: domain -> reward, to mix domains in one stage. A row's domain is that of its source, or
    its column ``domain``."""
    group_size: int = Field(8, ge=2)
    """G: rollouts per prompt; two is the least that has a baseline."""
    overlong: Literal["filter", "penalise", "score", "soft"] = "penalise"
    """Truncated rollouts: ``filter`` leaves them out of loss, denominator and group statistics; ``penalise`` gives
    them the failure value unseen; ``score`` shows them to the reward like any other (published for RLHF); ``soft``
    is ``penalise``, and takes up to 1 off the reward over the last ``overlong_buffer`` tokens (DAPO)."""
    overlong_buffer: int | None = Field(None, ge=1)
    """Tokens before ``max_new_tokens`` over which ``overlong: soft`` grows from 0 to -1."""
    advantage: str | AdvantageConfig = "group"
    """``group``: (r - mean) / (std + 1e-6) within the group; ``group_mean``: r - mean; ``leave_one_out``: r - mean of
    the siblings (RLOO); ``group_tanh``: tanh of ``group`` (P1 section 4.4). Or one of your own,
    ``package.module:function``, or a mapping of ``use`` and its keys (docs/new-method.md)."""
    loss: LossConfig | None = None
    """Default: the mean over tokens of -A log pi, nothing else."""
    updates_per_batch: int | None = Field(None, ge=1)
    """Optimizer steps per batch of rollouts. Default 1, which is strictly on-policy; more need ``loss.clip_high``."""
    dynamic_sampling: DynamicSampling | None = None
    """Ask other prompts in place of groups without variance. Default: such groups stay, and teach nothing."""
    curriculum: Curriculum | None = None
    """Leave out solved and hopeless prompts, epoch by epoch. Default: all stay."""
    abort_hopeless: bool | None = None
    """Stop generating for a group once fewer than two of its rollouts can count, whatever the last one brings: the
    others were cut off under ``overlong: filter``, never came back, or could not be graded. Nothing more can be known
    ahead: a rollout still at work may always be scored otherwise than its siblings. Saves those tokens; what is
    learned stays the same. Not with ``curriculum``, which judges prompts by all of their rollouts."""

    @model_validator(mode="after")
    def _one_reward(self) -> RlStage:
        if (self.reward is None) == (not self.rewards):
            raise Misfit("rewards" if self.rewards else "reward", "give exactly one of `reward` and `rewards`")
        if (self.overlong == "soft") != (self.overlong_buffer is not None):
            raise Misfit(
                "overlong" if self.overlong_buffer is None else "overlong_buffer",
                "overlong: soft and `overlong_buffer` go together",
            )
        clips = self.loss is not None and (self.loss.clip_high is not None or self.loss.use is not None)
        if self.updates > 1 and not clips:
            raise Misfit(
                "updates_per_batch",
                "several updates_per_batch leave the sampled policy: give `loss.clip_high` (0.2, say)",
            )
        if self.prompts_per_step < self.updates:
            raise Misfit(
                "updates_per_batch", "updates_per_batch is more than prompts_per_step: each update needs a prompt"
            )
        corrected = self.mismatch is not None and (self.mismatch.cap is not None or self.mismatch.mask != "none")
        if corrected and self.loss is not None and self.loss.use is not None:
            raise Misfit(
                "mismatch",
                "`cap` and `mask` correct the built-in loss; one of your own has the engine's log-probs: correct there",
            )
        return self

    @field_validator("advantage", mode="before")
    @classmethod
    def _known_advantage(cls, advantage: Any) -> Any:
        return checked_advantage(advantage)

    @property
    def drops_truncated(self) -> bool:
        """Whether truncated rollouts leave loss, denominator and group statistics."""
        return self.overlong == "filter"

    @property
    def functions(self) -> dict[str, UserFunction]:
        found = {}
        if self.loss is not None and self.loss.use is not None:
            found["loss"] = UserFunction(self.loss.use, self.loss.params, with_reference=self.loss.kl > 0)
        if isinstance(self.advantage, AdvantageConfig):
            found["advantage"] = UserFunction(self.advantage.use, self.advantage.params, group_size=self.group_size)
        elif ":" in self.advantage:
            found["advantage"] = UserFunction(self.advantage, {}, group_size=self.group_size)
        return found

    @property
    def rewards_by_domain(self) -> dict[str, RewardConfig]:
        return self.rewards if self.reward is None else {"": self.reward}

    @property
    def replaces_groups(self) -> bool:
        return self.dynamic_sampling is not None

    @property
    def updates(self) -> int:
        return self.updates_per_batch or 1

    @property
    def uses_ratios(self) -> bool:
        return self.updates > 1 or super().uses_ratios

    def contradictions(self) -> Found:
        yield from super().contradictions()
        if self.abort_hopeless and self.curriculum is not None:
            yield (
                ("abort_hopeless",),
                "a curriculum judges prompts by all of their rollouts, and would not see those given up: leave out one "
                "of `abort_hopeless` and `curriculum`",
            )
        longest, buffer = self.rollout.max_new_tokens, self.overlong_buffer
        if buffer is not None and buffer > longest:
            yield ("overlong_buffer",), f"{buffer} tokens are more than rollout.max_new_tokens, {longest}"
        if self.loss is not None and self.loss.fixed_length is not None and self.loss.aggregate != "fixed":
            yield ("loss", "fixed_length"), "belongs to `aggregate: fixed`; leave it out, or say that"

    def identity_changes(self, fields: dict[str, Any]) -> dict[str, Any]:
        fields = super().identity_changes(fields)
        if self.updates > 1:
            fields["updates"] = "cut over all ranks, one learning rate a step"
        return fields

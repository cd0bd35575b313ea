"""How a policy learns from rollouts: losses, guards against mismatch, which prompts are asked, how it is spread out.

Every default is the published recipe's: strictly on-policy, no KL, no entropy bonus, no correction (P1 section 4).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field, field_validator, model_validator

from cascade_rl.recipe.parts import Section, stage_reference
from cascade_rl.recipe.problems import Misfit, UnknownKey
from cascade_rl.recipe.wording import mismatch

LIKE_A_PATH = re.compile(r"[^:\s]+:[^:\s]+")


class LossConfig(Section):
    """What is summed over tokens, and what it is divided by. With ``use``, keys not listed here (and ``clip_low`` and
    ``clip_high``) are handed to that function."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    use: str | None = None
    """A loss of your own, ``package.module:function``, in place of the policy gradient and its clipping; ``kl`` and
    ``entropy`` are added to it (docs/new-method.md). Default: the published one."""

    aggregate: Literal["token", "sequence", "fixed"] = "token"
    """``token``: mean over all trained tokens of the step (P1); ``sequence``: mean over tokens of each rollout, then
    over rollouts (P1 section 4.4); ``fixed``: sum over tokens divided by rollouts x ``fixed_length`` (Dr. GRPO)."""
    fixed_length: int | None = Field(None, ge=1)
    """For ``fixed``; default: ``rollout.max_new_tokens``."""
    clip_low: float | None = Field(None, gt=0.0, lt=1.0)
    """Ratios below 1 - clip_low gain nothing more. Acts only where a batch gives several updates."""
    clip_high: float | None = Field(None, gt=0.0)
    """Ratios above 1 + clip_high gain nothing more; above ``clip_low`` it is DAPO's clip-higher."""
    kl: float = Field(0.0, ge=0.0)
    """Weight of the KL penalty to the weights the stage started from; above 0 a reference model is kept."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """The gradient of ``k1`` has mean zero: it is there to look at, and penalises nothing."""
    entropy: float = Field(0.0, ge=0.0)
    """Weight of the entropy bonus."""

    @model_validator(mode="after")
    def _keys_of_its_function(self) -> LossConfig:
        if self.use is None:
            for key in self.model_extra or {}:
                raise UnknownKey(key)
        elif not LIKE_A_PATH.fullmatch(self.use):
            raise Misfit("use", f"must be an import path such as my_methods:loss, not {self.use!r}")
        return self

    @property
    def params(self) -> dict[str, Any]:
        """Keyword arguments for the function that ``use`` names."""
        clips = {key: getattr(self, key) for key in ("clip_low", "clip_high") if getattr(self, key) is not None}
        return clips | dict(self.model_extra or {})


class AdvantageConfig(Section):
    """An advantage of your own by import path; keys not listed here are handed to it (docs/new-method.md)."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    use: str
    """``package.module:function``."""

    @property
    def params(self) -> dict[str, Any]:
        """Keyword arguments for the function that ``use`` names."""
        return dict(self.model_extra or {})


AdvantageName = Literal["group", "group_mean", "leave_one_out", "group_tanh"]


def checked_advantage(value: Any) -> Any:
    """``value`` of the key ``advantage``, as it was written. Raises ValueError for what is neither the name of an
    advantage, nor an import path, nor a mapping with one under ``use``."""
    if isinstance(value, AdvantageConfig):
        return value
    path = value.get("use") if isinstance(value, Mapping) else value
    if isinstance(path, str) and LIKE_A_PATH.fullmatch(path):
        return value
    if isinstance(value, Mapping):
        raise ValueError("must have a key `use` with an import path such as my_methods:advantage")
    if value not in get_args(AdvantageName):
        raise ValueError(
            mismatch(AdvantageName, [], value, "literal_error") + " (or an import path: my_methods:advantage)"
        )
    return value


class SftLossConfig(Section):
    """What the loss of SFT is averaged over, in the whole batch of a step: not per row, micro-batch or rank."""

    aggregate: Literal["token", "sequence"] = "token"
    """``token``: mean over all trained tokens of the step; ``sequence``: mean over the trained tokens of each row, then
    over rows."""


class EarlyStopConfig(Section):
    """When the held-out loss ends a stage. Its checkpoint is that of the best measurement."""

    patience: int = Field(3, ge=1)
    """Measurements in a row without improvement after which the stage ends."""
    min_delta: float = Field(0.0, ge=0.0)
    """By how much the loss must be below the best so far to count as an improvement."""


class MismatchConfig(Section):
    """What to do where the engine's probability of a token differs from the trainer's (training.md section 4)."""

    cap: float | None = Field(None, ge=1.0)
    """Truncated importance sampling: each token weighs min(trainer / engine, cap)."""
    mask: Literal["none", "band", "difference", "geometric"] = "none"
    """``band``: tokens whose ratio leaves [low, high] are left out (IcePop); ``difference``: those whose probabilities
    differ by more than ``high``; ``geometric``: whole rollouts whose geometric mean ratio leaves [low, high]."""
    low: float | None = Field(None, gt=0.0)
    high: float | None = Field(None, gt=0.0)
    support: Literal["whole", "kept"] | None = None
    """Under top-p or top-k, which probabilities are compared: ``whole``: over the whole vocabulary, at temperature 1;
    ``kept``: over the tokens that were left to draw from, as they were sampled; the loss then is that of this truncated
    policy. ``kept`` needs ``rollout.top_k``, which bounds what is sent, and colocated engines. Default: ``whole``."""

    @model_validator(mode="after")
    def _bounds(self) -> MismatchConfig:
        if self.mask == "difference" and self.high is None:
            raise Misfit("mask", "mask: difference needs `high`, the largest difference of probabilities (0.3, say)")
        if self.mask in ("band", "geometric") and (self.low is None or self.high is None):
            raise Misfit("mask", f"mask: {self.mask} needs `low` and `high`, the smallest and largest ratio that stay")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise Misfit("low", f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.mask == "none" and (self.low is not None or self.high is not None):
            raise Misfit(
                "low" if self.high is None else "high",
                "`low` and `high` are the bounds of a `mask`: name one, or leave them out",
            )
        if self.mask == "difference" and self.high is not None and self.high >= 1.0:
            raise Misfit("high", f"high ({self.high:g}): probabilities never differ by 1, so this would mask nothing")
        if self.mask in ("band", "geometric") and not (self.low or 0.0) <= 1.0 <= (self.high or 0.0):
            raise Misfit(
                "high" if (self.high or 0.0) < 1.0 else "low",
                f"low ({self.low:g}) and high ({self.high:g}) must lie on either side of 1, the ratio of a token that "
                "trainer and engine agree about",
            )
        return self


class DynamicSampling(Section):
    """Groups whose rewards are all equal teach nothing: others are asked in their place (DAPO; P1 section 4.3)."""

    max_factor: float = Field(10.0, ge=1.0)
    """At most so many times ``prompts_per_step`` prompts are asked in a step; then it trains on what there is."""


class Curriculum(Section):
    """After each epoch, prompts that were solved or missed by all rollouts are left out (P1 section 4.3, Math RL)."""

    readmit_hard: float = Field(0.1, ge=0.0, le=1.0)
    """Chance, each epoch, that a prompt missed by all comes back."""
    readmit_easy: float = Field(0.01, ge=0.0, le=1.0)
    """Chance, each epoch, that a prompt solved by all comes back."""
    solved: float = 1.0
    """Reward from which on a rollout counts as right."""


class LoraConfig(Section):
    """Train low-rank adapters instead of all weights. The stage's checkpoint has them merged in.

    They have no dropout: a policy that drops units would be another than the one that sampled.
    """

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0.0)
    target_modules: str | list[str] = "all-linear"
    """Names of linear layers (``[q_proj, v_proj]``), a regular expression of whole names, or all but the head."""
    sync: Literal["merged", "adapter"] = "merged"
    """What the engine gets each step: whole weights with the adapter merged in, or the adapter alone."""

    @field_validator("target_modules")
    @classmethod
    def _targets(cls, wanted: str | list[str]) -> str | list[str]:
        if not wanted:
            raise ValueError("name at least one linear layer, or leave it out for all but the head")
        if isinstance(wanted, str) and wanted != "all-linear":
            if re.fullmatch(r"[\w-]+", wanted):
                raise ValueError(f"a text is a pattern of whole names, which {wanted!r} is none of: write [{wanted}]")
            try:
                re.compile(wanted)
            except re.error as error:
                raise ValueError(f"{wanted!r} is no regular expression: {error}") from None
        return wanted

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / self.rank

    @property
    def peft_settings(self) -> dict[str, Any]:
        """As peft's ``LoraConfig`` and an ``adapter_config.json`` name them."""
        return {
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "target_modules": self.target_modules,
            "bias": "none",
        }


class ShardingConfig(Section):
    """How a policy is spread over ranks. It changes speed and memory, not what is computed."""

    strategy: Literal["auto", "ddp", "zero2", "zero3", "fsdp2"] = "auto"
    """``ddp``: a whole policy on each rank; ``zero2``, ``zero3``: DeepSpeed shares out gradients and optimizer, and
    weights too; ``fsdp2``: torch's ``fully_shard``. ``auto``: what the accelerate config asks for, else ``ddp``. A
    strategy named here must be the one that the accelerate config asks for, if it asks for any."""
    offload_optimizer: bool = False
    """Optimizer states and its step live on the CPU."""
    offload_parameters: bool = False
    """Shards of weights wait on the CPU (``zero3``, ``fsdp2``)."""
    offload_activations: bool = False
    """What layers keep for the backward pass waits on the CPU; with ``gradient_checkpointing`` their inputs only."""
    offload_reference: bool = False
    """Frozen models (the reference of a KL penalty, teachers) wait on the CPU between uses."""
    sequence_parallel: int = Field(1, ge=1)
    """Ulysses: so many ranks share each row's tokens (long contexts). Divides the number of ranks and of heads."""


class TeacherConfig(Section):
    """Whose distribution a student learns: an earlier stage (``stage:NAME``), a folder, a hub id, or a vLLM server."""

    model: str | None = None
    url: str | None = None
    """Of an OpenAI-compatible vLLM server that serves the teacher, e.g. http://localhost:8000/v1. What it says holds
    for temperature 1, so the stage must sample at that."""

    @model_validator(mode="after")
    def _one_place(self) -> TeacherConfig:
        if (self.model is None) == (self.url is None):
            raise Misfit("url", "give exactly one of `model` and `url`")
        return self

    @property
    def stage(self) -> str | None:
        """Name of the stage of this recipe that is the teacher, if it is one."""
        return stage_reference(self.model)

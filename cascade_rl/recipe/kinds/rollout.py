"""What kinds that learn from the policy's own samples have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from cascade_rl.recipe.conditions import SPOKEN, Condition, condition
from cascade_rl.recipe.kinds.base import Found, LanguageModelStage, Panel, Positions
from cascade_rl.recipe.methods import MismatchConfig
from cascade_rl.recipe.parts import LEAST_TEMPERATURE, NOT_IDENTITY, EngineConfig, SamplingConfig
from cascade_rl.recipe.problems import Keys, Misfit, suggestion

LENGTHS = (
    Panel("completions/mean_length", "completion length, tokens"),
    Panel("completions/truncated", "truncated, %", 100.0),
    Panel("policy/entropy", "entropy, nats per token"),
)
GAP = Panel("sampling/logprob_gap_mean", "trainer-engine log-prob gap, nats")


class RolloutStage(LanguageModelStage):
    """Keys of stages that learn from what the policy itself samples."""

    READS = "prompts"
    SAMPLES = True
    DECAYED_BEFORE = "all"
    PANELS: ClassVar[Sequence[Panel]] = (*LENGTHS, GAP)
    HEADLINE: ClassVar[tuple[str, str]] = ("reward", "reward/mean")
    """The number that a person looks at first: its word in ``stop_when`` and on the terminal, and its metric."""
    modes: Literal["rows", "half", "thinking", "instruct"] = "rows"
    """Which prompts are answered with thinking: ``rows``: each row's own ``thinking`` column, or the template's mode;
    ``half``: exactly half of each step's prompts; ``thinking`` and ``instruct``: all or none."""
    prompts_per_step: int = Field(128, ge=1)
    """P: prompts per optimizer step over all ranks."""
    group_size: int = Field(8, ge=1)
    """G: rollouts per prompt."""
    steps: int = Field(ge=1)
    stop_when: dict[str, str] = {}
    """Metric -> condition, e.g. ``truncation_rate: "< 0.10"``: the stage ends once all hold for the mean of the last
    ``stop_window`` steps, and the next one starts."""
    stop_window: int | None = Field(None, ge=1)
    """Default: 5."""
    rollout: SamplingConfig = SamplingConfig()
    """How completions are sampled. A row with a column ``max_new_tokens`` may ask for fewer tokens."""
    instruct_max_new_tokens: int | None = Field(None, ge=1)
    """Tokens per completion of prompts answered without thinking; default: ``rollout.max_new_tokens``."""
    mismatch: MismatchConfig | None = None
    """Corrections where trainer and engine disagree about a token's probability; default: none, the gap is watched."""
    max_prompt_tokens: int | None = Field(None, ge=1)
    """Longer prompts are dropped at load time, counted in the log."""
    engine: EngineConfig = Field(EngineConfig(), json_schema_extra=NOT_IDENTITY)
    max_logprob_gap: float | None = Field(None, gt=0.0, json_schema_extra=NOT_IDENTITY)
    """Largest mean |trainer - engine| log-prob per token before the stage stops; default 1e-3 in float32, 0.1 in
    half precision."""

    @model_validator(mode="after")
    def _halves_and_weights(self) -> RolloutStage:
        weighted = [source.weight is not None for source in self.data]
        if any(weighted) and not all(weighted):
            raise Misfit("data", "either every source of `data` has a `weight`, or none")
        if self.lora is not None and self.lora.sync == "adapter" and self.engine.placement == "dedicated":
            raise Misfit(
                "lora", "sync", "lora.sync: adapter is for colocated engines; use lora.sync: merged with dedicated ones"
            )
        if self.modes == "half" and self.prompts_per_step % 2:
            raise Misfit("prompts_per_step", f"modes: half needs an even prompts_per_step, not {self.prompts_per_step}")
        return self

    def completion_limit(self, thinking: bool) -> int:
        """Most tokens of a completion in one mode. A row may ask for fewer (column ``max_new_tokens``)."""
        instruct = None if thinking else self.instruct_max_new_tokens
        return instruct or self.rollout.max_new_tokens

    @property
    def longest_completion(self) -> int:
        """Most tokens of any completion of the stage, over the modes that its prompts may have."""
        possible = {"thinking": [True], "instruct": [False]}.get(self.modes, [True, False])
        return max(self.completion_limit(thinking) for thinking in possible)

    @property
    def stop_conditions(self) -> list[Condition]:
        """``stop_when``, read."""
        return [condition(metric, text) for metric, text in self.stop_when.items()]

    @field_validator("stop_when")
    @classmethod
    def _readable(cls, stop_when: dict[str, str]) -> dict[str, str]:
        for metric, text in stop_when.items():
            condition(metric, text)
        return stop_when

    @field_validator("rollout")
    @classmethod
    def _sampled(cls, rollout: SamplingConfig) -> SamplingConfig:
        if rollout.temperature == 0.0:
            raise Misfit("temperature", "temperature 0 makes the rollouts of a group identical; use a value above 0")
        if rollout.temperature < LEAST_TEMPERATURE:
            raise Misfit(
                "temperature", f"vLLM samples at {LEAST_TEMPERATURE:g} whatever is asked below it: use that or more"
            )
        if rollout.top_k == 1:
            raise Misfit("top_k", "top_k: 1 makes the rollouts of a group identical; use 0 (off) or more than 1")
        return rollout

    @property
    def uses_ratios(self) -> bool:
        """Whether the loss compares probabilities of the trainer with the engine's, or with those of an earlier
        update."""
        return self.mismatch is not None and (self.mismatch.cap is not None or self.mismatch.mask != "none")

    @property
    def updates(self) -> int:
        """Optimizer steps per batch of rollouts."""
        return 1

    def rows_per_step(self) -> tuple[str, int]:
        return "prompts_per_step", self.prompts_per_step

    @property
    def known_steps(self) -> int:
        return self.steps

    @property
    def total_prompts(self) -> int:
        return self.steps * self.prompts_per_step

    def longest_tokens(self) -> Positions:
        prompt, new = self.max_prompt_tokens, self.longest_completion
        keys: Keys = ("rollout", "max_new_tokens")
        if new != self.rollout.max_new_tokens:
            keys = ("instruct_max_new_tokens",)
        need = (prompt or 1) + new
        what = f"max_prompt_tokens {prompt} + {keys[-1]} {new} = {need}" if prompt else f"{new} and a prompt's"
        return Positions(keys, need, what)

    def arithmetic(self, processes: int) -> str:
        rollouts = self.prompts_per_step * self.group_size
        return (
            f"{self.steps} steps; each {self.prompts_per_step} prompts x {self.group_size} = {rollouts} rollouts "
            f"of <= {self.longest_completion} tokens ({rollouts // processes} per rank), {self.updates} "
            f"update{'s' if self.updates > 1 else ''}"
        )

    @property
    def needs_whole_rollouts(self) -> str | None:
        return "mask: geometric" if self.mismatch is not None and self.mismatch.mask == "geometric" else None

    def contradictions(self) -> Found:
        yield from super().contradictions()
        yield from self._end()
        yield from self._support()

    def _end(self) -> Found:
        """``stop_when`` and its window."""
        if self.stop_window is not None and not self.stop_when:
            yield ("stop_window",), "there is no `stop_when` that looks at it"
        elif self.stop_when and (self.stop_window or 0) > self.steps:
            yield ("stop_window",), f"a mean of {self.stop_window} steps is never known in {self.steps}"
        known = [word for word in SPOKEN if word not in ("reward", "advantage") or word == self.HEADLINE[0]]
        for metric in self.stop_when:
            if metric not in known and "/" not in metric:
                hint = suggestion(metric, known, "names are")
                message = f"a {self.kind} stage has no such metric; {hint} (or one of metrics.jsonl, like reward/mean)"
                yield ("stop_when", metric), message

    def _support(self) -> Found:
        if self.mismatch is None or self.mismatch.support != "kept":
            return
        keys: Keys = ("mismatch", "support")
        if self.rollout.top_k == 0:
            yield keys, "`kept` needs `rollout.top_k` above 0, which bounds how many tokens each position is sent with"
        if self.engine.placement == "dedicated":
            yield keys, "`kept` is for colocated engines: servers do not say which tokens were kept"
        if any(teacher.url for teacher in self.teachers_by_domain.values()):
            yield (
                keys,
                "`kept` needs teachers in this process: one behind a `url` answers for the whole vocabulary alone",
            )

    def notes(self) -> list[str]:
        drawn_from_all = self.rollout.top_p == 1.0 and self.rollout.top_k == 0
        kept = self.mismatch is not None and self.mismatch.support == "kept"
        if drawn_from_all or kept or not self.uses_ratios:
            return []
        return [
            f"stage {self.name}: rollouts are drawn with top_p or top_k, but ratios are those of the whole "
            "vocabulary's probabilities, not of the truncated ones that tokens were drawn by. `mismatch.support: kept` "
            "takes the latter (docs/training.md)."
        ]

    def identity_changes(self, fields: dict[str, Any]) -> dict[str, Any]:
        mismatch = fields.get("mismatch")
        if mismatch and mismatch.get("support") == "whole":  # as before the key existed
            fields["mismatch"] = {key: value for key, value in mismatch.items() if key != "support"}
        return fields

    @classmethod
    def live_line(cls, metrics: Mapping[str, Any]) -> list[str]:
        word, metric = cls.HEADLINE
        parts = [f"{word} {metrics[metric]:.3f}", f"length {metrics['completions/mean_length']:.0f}"]
        if metrics["completions/truncated"]:
            parts.append(f"truncated {100 * metrics['completions/truncated']:.0f}%")
        if math.isfinite(metrics["sampling/logprob_gap_mean"]):  # nothing is measured where nothing teaches
            parts.append(f"gap {metrics['sampling/logprob_gap_mean']:.0e}")
        return parts

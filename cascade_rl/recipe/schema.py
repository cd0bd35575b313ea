"""The typed recipe: stages and the whole file. Their parts are in ``parts`` and ``measuring``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from cascade_rl.recipe.conditions import Condition, condition
from cascade_rl.recipe.learning import (
    AdvantageConfig,
    Curriculum,
    DynamicSampling,
    EarlyStopConfig,
    LoraConfig,
    LossConfig,
    MismatchConfig,
    SftLossConfig,
    ShardingConfig,
    TeacherConfig,
    checked_advantage,
)
from cascade_rl.recipe.measuring import EvaluateConfig, GateConfig, PairBenchmark
from cascade_rl.recipe.parts import (
    LEAST_TEMPERATURE,
    NOT_IDENTITY,
    DataSource,
    EngineConfig,
    Exclusion,
    Name,
    OptimizerConfig,
    RewardConfig,
    RopeScaling,
    SamplingConfig,
    Section,
    TemplateConfig,
)
from cascade_rl.recipe.problems import Misfit


class StageConfig(OptimizerConfig):
    """Keys of every stage."""

    REVISIONS: ClassVar[Mapping[int, str]] = {}
    """Revisions of the kind after the first, each with what it computes otherwise. Raised when results change although
    no key does, so that old results are not taken for new ones."""

    name: str = Name
    kind: str
    init: str | None = None
    """Whose checkpoint this stage starts from: an earlier stage, ``model`` (the recipe's base), or a hub id or
    path of its own. Default: the stage before that is no reward model, since those are side branches."""
    data: list[DataSource] = Field(min_length=1)
    exclude: list[Exclusion] = []
    """Rows to leave out of ``data``."""
    seed: int | None = Field(None, ge=0, le=2**32 - 1)
    """Default: the recipe's seed."""
    save_every: int = Field(10, ge=1, json_schema_extra=NOT_IDENTITY)
    """Steps between resumable states; the newest two are kept."""
    save_every_s: float = Field(1800.0, gt=0.0, json_schema_extra=NOT_IDENTITY)
    """A state is also saved after the first step that ends so many seconds after the last one was taken: whichever of
    ``save_every`` and ``save_every_s`` comes first. One that falls due while another is still being written follows
    after it."""
    rope_scaling: RopeScaling | None = None
    """Written over the parent's, and kept by the stages after this one. Default: the parent's."""
    tokens_per_micro_batch: int = Field(16384, ge=1, json_schema_extra=NOT_IDENTITY)
    """Tokens per forward-backward pass; a longer sequence gets a pass of its own."""
    gradient_checkpointing: bool = Field(False, json_schema_extra=NOT_IDENTITY)
    sharding: ShardingConfig = Field(ShardingConfig(), json_schema_extra=NOT_IDENTITY)
    max_skipped_steps: int = Field(3, ge=0, json_schema_extra=NOT_IDENTITY)
    """Steps in a row that may be skipped because loss or gradient is not finite before the stage stops."""
    stall_timeout_s: float = Field(1800.0, gt=0.0, json_schema_extra=NOT_IDENTITY)
    """When nothing has finished for so long, all ranks print what they wait for and the stacks of their threads."""
    optimizer_state: Literal["fresh", "inherit"] = "fresh"
    """``inherit`` goes on with the parent's optimizer moments (same kind only); the step count starts at 0."""

    @classmethod
    def revision(cls) -> int:
        """The revision of the kind that computes stages now; 1 is the first."""
        return max(cls.REVISIONS, default=1)


class LanguageModelStage(StageConfig):
    """Keys of stages that train a language model, and no reward model."""

    lora: LoraConfig | None = None
    """Default: all weights are trained."""
    logprob_chunk_tokens: int | None = Field(None, ge=1, json_schema_extra=NOT_IDENTITY)
    """Tokens whose vocabulary row is held in memory at once; default: as many as fit a quarter of a GiB (CPU) or one
    GiB (GPU)."""


class SftStage(LanguageModelStage):
    """Supervised fine-tuning on conversations, loss on assistant tokens only.

    Rows are packed into micro-batches of ``tokens_per_micro_batch``; a row never sees another one.
    """

    REVISIONS = {
        2: "the trainer is that of all other stages; tool calls, tools and reasoning are trained as the template "
        "renders them, and no answer to nothing is",
    }
    kind: Literal["sft"] = "sft"
    lr_schedule: Literal["constant", "cosine", "linear"] = "cosine"
    batch_size: int = Field(256, ge=1)
    """Rows per optimizer step over all ranks."""
    epochs: float | None = Field(None, gt=0.0)
    steps: int | None = Field(None, ge=1)
    """Optimizer steps; give either this or ``epochs``."""
    max_length: int = Field(16384, ge=2)
    """Longest row in tokens, prompt included."""
    overlong: Literal["drop", "truncate"] = "drop"
    """What happens to rows over ``max_length``; the published recipe drops them."""
    turns: Literal["each", "last"] = "each"
    """``each``: a conversation becomes one training row per assistant turn, its history rendered as at inference;
    ``last``: only the last turn is trained."""
    loss: SftLossConfig | None = None
    """Default: the mean over all trained tokens of the step."""
    held_out: int | list[DataSource] | None = None
    """What the loss is measured on without being trained on: so many rows of ``data``, drawn by the seed, or rows of
    other sources. Of a row that is drawn no copy is trained on, and no other turn of its conversation."""
    evaluate_every: int | None = Field(None, ge=1)
    """Steps between measurements of the loss on ``held_out``, written as ``eval/loss`` and ``eval/token_accuracy``.
    Default: at the end alone."""
    early_stop: EarlyStopConfig | None = None
    """End the stage once the held-out loss does not improve any more. Needs ``held_out`` and ``evaluate_every``."""
    trainer: Literal["trl"] | None = None
    """``trl``: TRL's SFTTrainer, whole on each rank (one process or data-parallel). Default: the trainer of all other
    stages."""
    packing: bool = False
    """With ``trainer: trl``, its packing: rows fill sequences of ``max_length``, borders respected, and ``batch_size``
    counts those sequences. Else it changes nothing: rows are always packed, and ``batch_size`` counts rows."""
    micro_batch_size: int | None = Field(None, ge=1, json_schema_extra=NOT_IDENTITY)
    """With ``trainer: trl``, rows per forward pass and rank; default: the whole share of the rank."""

    @model_validator(mode="after")
    def _lengths_and_held_out(self) -> SftStage:
        if (self.epochs is None) == (self.steps is None):
            raise Misfit("steps", "give exactly one of `epochs` and `steps`")
        if self.held_out in (0, []):
            raise Misfit("held_out", "0 rows measure nothing: give a number of rows or data sources, or leave it out")
        if self.evaluate_every is not None and self.held_out is None:
            raise Misfit("evaluate_every", "there is nothing to measure: give `held_out` as well, or leave it out")
        if self.early_stop is not None and self.evaluate_every is None:
            raise Misfit("early_stop", "it looks at the held-out loss: give `held_out` and `evaluate_every` as well")
        return self

    @property
    def held_out_sources(self) -> list[DataSource]:
        """The sources of ``held_out``, where it names some."""
        return self.held_out if isinstance(self.held_out, list) else []


class RolloutStage(LanguageModelStage):
    """Keys of stages that learn from what the policy itself samples."""

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


class RlStage(RolloutStage):
    """Strictly on-policy GRPO: one optimizer step per batch of rollouts (P1 section 4)."""

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
        if (self.updates_per_batch or 1) > 1 and not clips:
            raise Misfit(
                "updates_per_batch",
                "several updates_per_batch leave the sampled policy: give `loss.clip_high` (0.2, say)",
            )
        if self.prompts_per_step < (self.updates_per_batch or 1):
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
    def functions(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """``loss`` and ``advantage`` -> import path and keys, where they are functions of the user's."""
        found = {}
        if self.loss is not None and self.loss.use is not None:
            found["loss"] = self.loss.use, self.loss.params
        if isinstance(self.advantage, AdvantageConfig):
            found["advantage"] = self.advantage.use, self.advantage.params
        elif ":" in self.advantage:
            found["advantage"] = self.advantage, {}
        return found

    @property
    def rewards_by_domain(self) -> dict[str, RewardConfig]:
        """Domain -> reward; a stage with a single ``reward`` has it under the empty name."""
        return self.rewards if self.reward is None else {"": self.reward}


class DistillStage(RolloutStage):
    """On-policy distillation: the student's own rollouts, each token weighed by how much likelier a teacher finds it
    (MOPD; P2 section 10.1 in the shared notes)."""

    kind: Literal["distill"] = "distill"
    teacher: TeacherConfig | None = None
    teachers: dict[str, TeacherConfig] = {}
    """Instead of ``teacher``: domain -> teacher. A row's domain is that of its source, or its column ``domain``."""
    group_size: int = Field(4, ge=1)
    ratio_low: float = Field(0.5, gt=0.0, le=1.0)
    """Tokens whose trainer / engine ratio is below this are left out of the loss, not of the denominator."""
    ratio_high: float = Field(2.0, ge=1.0)
    """Same above this."""

    @model_validator(mode="after")
    def _one_teacher(self) -> DistillStage:
        if (self.teacher is None) == (not self.teachers):
            raise Misfit("teachers" if self.teachers else "teacher", "give exactly one of `teacher` and `teachers`")
        return self

    @property
    def teachers_by_domain(self) -> dict[str, TeacherConfig]:
        """Domain -> teacher; a stage with a single ``teacher`` has it under the empty name."""
        return self.teachers if self.teacher is None else {"": self.teacher}


class RewardModelStage(StageConfig):
    """A scalar head on a language model, trained on preference pairs (Bradley-Terry).

    Rows bring ``chosen`` and ``rejected`` (conversations or texts) and, where these are answers only, ``prompt``; or
    HelpSteer3's ``context``, ``response1``, ``response2`` and ``overall_preference``. A side branch: the stage after it
    does not start from it.
    """

    REVISIONS = {2: "it is trained on packed pairs by the trainer of all other stages, no longer by TRL's"}
    kind: Literal["reward_model"] = "reward_model"
    lr_schedule: Literal["constant", "cosine", "linear"] = "cosine"
    batch_size: int = Field(256, ge=1)
    """Pairs per optimizer step over all ranks."""
    epochs: float | None = Field(None, gt=0.0)
    steps: int | None = Field(None, ge=1)
    """Optimizer steps; give either this or ``epochs``."""
    max_length: int = Field(4096, ge=2)
    """Longest conversation in tokens; pairs with a longer one are dropped, and counted in the log."""
    centering: float | None = Field(None, gt=0.0)
    """Adds the mean of ``centering`` * (chosen + rejected)^2 to the loss, which keeps scores near zero (TRL's
    ``center_rewards_coefficient``; 0.01, say). Default: nothing is added."""
    lora: LoraConfig | None = None
    """Train low-rank adapters, and the scalar head as a whole. Default: all weights are trained."""
    trainer: Literal["trl"] | None = None
    """``trl``: TRL's RewardTrainer, whole on each rank (one process or data-parallel). Default: the trainer of all
    other stages."""
    micro_batch_size: int | None = Field(None, ge=1, json_schema_extra=NOT_IDENTITY)
    """With ``trainer: trl``, pairs per forward pass and rank; default: the whole share of the rank."""
    held_out: int = Field(0, ge=0)
    """Pairs, drawn by the seed, that are not trained on but measured at the end."""
    evaluate_every: int | None = Field(None, ge=1, json_schema_extra=NOT_IDENTITY)
    """Steps between measurements of the held-out pairs, written as ``eval/loss``, ``eval/accuracy`` and
    ``eval/margin``. Default: at the end alone."""
    template: TemplateConfig | None = None
    """Default: the recipe's for a model of this recipe, ``native`` for one from elsewhere."""
    evaluate: list[str | PairBenchmark] = Field([], json_schema_extra=NOT_IDENTITY)
    """Measured at the end beside the held-out pairs: names of shipped ones (``rewardbench``), or definitions."""

    @model_validator(mode="after")
    def _one_length(self) -> RewardModelStage:
        if (self.epochs is None) == (self.steps is None):
            raise Misfit("steps", "give exactly one of `epochs` and `steps`")
        if self.evaluate_every is not None and not self.held_out:
            raise Misfit("evaluate_every", "there is nothing to measure: give `held_out` as well, or leave it out")
        return self


class LaunchConfig(Section):
    """How `cascade-rl run` calls `accelerate launch`."""

    accelerate: str | None = None
    """Path of an accelerate config file, e.g. ``launch/accelerate/ddp-8.yaml``."""


class WandbConfig(Section):
    project: str = "cascade-rl"
    entity: str | None = None
    mode: Literal["auto", "online", "offline"] = "auto"
    """``auto``: online with a login or WANDB_API_KEY, offline otherwise."""


class TrackioConfig(Section):
    project: str = "cascade-rl"


class TrackingConfig(Section):
    """Metric sinks beside metrics.jsonl, which is always written."""

    wandb: WandbConfig | None = None
    trackio: TrackioConfig | None = None


class Recipe(Section):
    """The whole file after `base`, `extends`, `defaults` and `--set` were applied."""

    name: str = Name
    description: str = ""
    model: str
    """Hub id, local folder, or a built-in name (``tiny-qwen3``, ``smollm2-135m-instruct``)."""
    model_args: dict[str, Any] = {}
    """Arguments of a built-in model, e.g. its sizes."""
    template: TemplateConfig = TemplateConfig()
    seed: int = Field(42, ge=0, le=2**32 - 1)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: float32 on CPU, bfloat16 (float32 master weights) on GPU."""
    stages: list[SftStage | RewardModelStage | RlStage | DistillStage] = Field(min_length=1)
    evaluate: EvaluateConfig = EvaluateConfig()
    gates: list[GateConfig] = []
    """Asked after every stage, once it is measured."""
    tracking: TrackingConfig = TrackingConfig()
    launch: LaunchConfig = LaunchConfig()


Stage = SftStage | RewardModelStage | RlStage | DistillStage
KINDS: dict[str, type[StageConfig]] = {
    "sft": SftStage,
    "reward_model": RewardModelStage,
    "rl": RlStage,
    "distill": DistillStage,
}
"""Kind in a recipe -> its schema. `cascade_rl.stages` has the code of each."""

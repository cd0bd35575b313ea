"""The typed recipe: what every key means. One unit throughout: batch sizes count rows, lengths count tokens.

A field marked ``NOT_IDENTITY`` says where or how fast a stage runs, not what it computes: changing it keeps the
stage's identity, so finished work stays valid (see ``cascade_rl.store.identity``).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

NOT_IDENTITY: dict[str, Any] = {"identity": False}
NAME_PATTERN, NAME_LENGTH = r"^[a-z0-9][a-z0-9._-]*$", 64
Name = Field(pattern=NAME_PATTERN, max_length=NAME_LENGTH)


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class TemplateConfig(Section):
    """How conversations become text (``cascade_rl.data.template``)."""

    mode: Literal["thinking", "instruct", "unified", "native"] = "thinking"
    """``thinking``: every prompt carries " /think"; ``instruct``: " /no_think"; ``unified``: each row decides by its
    ``thinking`` column; ``native``: the model's own template, untouched (for models trained with another one)."""
    system: str | None = "You are a helpful and harmless assistant."
    """Default system prompt of rows that bring none; null leaves the turn out."""


class DataSource(Section):
    """Rows from one place. Sources of a stage are concatenated, then shuffled by the seed."""

    source: str
    """A hub id (``openai/gsm8k``), a file or folder (``.jsonl``, ``.json``, ``.parquet``; relative to the recipe
    file first, then to the working folder), or a generator of rows as ``package.module:function``."""
    split: str = "train"
    """Split of a hub data set; handed to generators; ignored for files."""
    config: str | None = None
    """Configuration (subset) name of a hub data set."""
    revision: str | None = None
    """Commit or tag of a hub data set; pin it, since it is part of the stage's identity."""
    args: dict[str, Any] = {}
    """Keyword arguments of a generator."""
    columns: dict[str, str] = {}
    """Our column name -> the row's column name, applied first."""
    extract: dict[str, str] = {}
    """Column -> regular expression whose first group replaces the column, e.g. ``answer: '####\\s*(.*)$'``."""
    prompt: str | None = None
    """User message as a format string over columns (``"{question}\\n\\nThink first."``). Without it a row brings
    ``messages`` (a conversation) or ``prompt`` (text or messages)."""
    limit: int | None = Field(None, ge=1)
    """Use only the first rows."""
    repeat: int = Field(1, ge=1)
    """Upsampling: how many times each row occurs in an epoch."""


class SamplingConfig(Section):
    """How completions are sampled."""

    max_new_tokens: int = Field(1024, ge=1)
    """Tokens per completion, thinking included; a completion cut off here is truncated."""
    temperature: float = Field(1.0, ge=0.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    top_k: int = Field(0, ge=0)
    """0 is off."""


class EvaluationSampling(SamplingConfig):
    """How completions of a benchmark are sampled: at the paper's temperature, unless said otherwise."""

    temperature: float = Field(0.6, ge=0.0)
    top_p: float = Field(0.95, gt=0.0, le=1.0)


class EngineConfig(Section):
    """How the vLLM engine runs; it changes speed and memory, not what is sampled."""

    max_num_seqs: int = Field(256, ge=1)
    """Rollouts generated at the same time by one engine."""
    max_batched_tokens: int = Field(8192, ge=64)
    gpu_memory_utilization: float = Field(0.45, gt=0.0, lt=1.0)
    """Share of a GPU's memory for the engine, which shares the device with the trainer."""
    cpu_kv_cache_gib: int = Field(1, ge=1)
    enforce_eager: bool = False
    """Skip compilation and CUDA graphs; always so on CPU."""


class RewardConfig(Section):
    """A reward by import path; keys not listed here are handed to it as keyword arguments."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    use: str
    """``package.module:function`` or ``package.module:Class``, e.g. ``rewards.math:verify``."""
    timeout_s: float = Field(10.0, gt=0.0)
    """Hard deadline of one call; the worker that passes it is killed."""
    failure: float = 0.0
    """Value of a response that hangs or kills its verifier twice, and of truncated ones under ``penalise``."""
    max_error_rate: float = Field(0.05, ge=0.0, le=1.0)
    """Share of a step's calls that may fail by the grader's own fault before the stage stops."""
    workers: int | None = Field(None, ge=1, json_schema_extra=NOT_IDENTITY)
    """Worker processes per rank; default: one per core, shared between the ranks of a host."""

    @property
    def params(self) -> dict[str, Any]:
        """Keyword arguments for the reward itself."""
        return dict(self.model_extra or {})


class OptimizerConfig(Section):
    """AdamW and its schedule, shared by the kinds that train."""

    learning_rate: float = Field(gt=0.0)
    min_learning_rate: float = Field(0.0, ge=0.0)
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    lr_horizon_steps: int | None = Field(None, ge=1)
    """Step at which a decaying schedule reaches ``min_learning_rate``; default: the stage's own steps."""
    warmup_steps: int = Field(0, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0.0)
    grad_clip: float = Field(1.0, gt=0.0)
    """Largest global gradient norm."""

    @field_validator("betas")
    @classmethod
    def _decays(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"AdamW's betas must be at least 0 and below 1, not {list(betas)}")
        return betas


class StageConfig(OptimizerConfig):
    """Keys of every stage."""

    name: str = Name
    kind: str
    init: str | None = None
    """Whose checkpoint this stage starts from: an earlier stage, ``model`` (the recipe's base), or a hub id or
    path of its own. Default: the stage before."""
    data: list[DataSource] = Field(min_length=1)
    seed: int | None = Field(None, ge=0, le=2**32 - 1)
    """Default: the recipe's seed."""
    save_every: int = Field(10, ge=1, json_schema_extra=NOT_IDENTITY)
    """Steps between resumable states; the newest two are kept."""
    gradient_checkpointing: bool = Field(False, json_schema_extra=NOT_IDENTITY)
    optimizer_state: Literal["fresh", "inherit"] = "fresh"
    """``inherit`` goes on with the parent's optimizer moments (same kind only); the step count starts at 0."""


class SftStage(StageConfig):
    """Supervised fine-tuning on conversations, loss on assistant tokens only (TRL's SFTTrainer)."""

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
    packing: bool = False
    """TRL's packing: rows fill sequences of ``max_length``, borders respected, and ``batch_size`` counts those
    sequences. Without it batches are padding-free all the same and count rows."""
    micro_batch_size: int | None = Field(None, ge=1, json_schema_extra=NOT_IDENTITY)
    """Rows per forward pass and rank; default: the whole share of the rank."""

    @model_validator(mode="after")
    def _one_length(self) -> SftStage:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of `epochs` and `steps`")
        return self


class RlStage(StageConfig):
    """Strictly on-policy GRPO: one optimizer step per batch of rollouts (P1 section 4)."""

    kind: Literal["rl"] = "rl"
    reward: RewardConfig
    prompts_per_step: int = Field(128, ge=1)
    """P: prompts per optimizer step over all ranks."""
    group_size: int = Field(8, ge=2)
    """G: rollouts per prompt; two is the least that has a baseline."""
    steps: int = Field(ge=1)
    rollout: SamplingConfig = SamplingConfig()
    overlong: Literal["filter", "penalise"] = "penalise"
    """Truncated rollouts: ``filter`` leaves them out of loss, denominator and group statistics; ``penalise``
    scores them as a failure."""
    advantage: Literal["group", "group_mean"] = "group"
    """``group``: (r - mean) / (std + 1e-6) within the group; ``group_mean``: r - mean."""
    max_prompt_tokens: int | None = Field(None, ge=1)
    """Longer prompts are dropped at load time, counted in the log."""
    engine: EngineConfig = Field(EngineConfig(), json_schema_extra=NOT_IDENTITY)
    tokens_per_micro_batch: int = Field(16384, ge=1, json_schema_extra=NOT_IDENTITY)
    """Tokens per forward-backward pass; a longer rollout gets a pass of its own."""
    logprob_chunk_tokens: int = Field(1024, ge=1, json_schema_extra=NOT_IDENTITY)
    """Tokens whose vocabulary row is held in memory at once."""
    max_logprob_gap: float | None = Field(None, gt=0.0, json_schema_extra=NOT_IDENTITY)
    """Largest mean |trainer - engine| log-prob per token before the stage stops; default 1e-3 in float32, 0.1 in
    half precision."""

    @field_validator("rollout")
    @classmethod
    def _sampled(cls, rollout: SamplingConfig) -> SamplingConfig:
        if rollout.temperature == 0.0:
            raise ValueError("temperature 0 makes the rollouts of a group identical; use a value above 0")
        return rollout


class BenchmarkConfig(Section):
    """One evaluation: rows, how to sample, how to grade."""

    name: str = Name
    data: list[DataSource] = Field(min_length=1)
    reward: RewardConfig
    samples: int = Field(1, ge=1)
    """n of avg@n: completions per row."""
    sampling: EvaluationSampling = EvaluationSampling()
    mode: Literal["thinking", "instruct"] | None = None
    """Overrides the recipe's template mode."""


class SamplingChanges(Section):
    """What of a shipped benchmark's sampling should differ here."""

    max_new_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0.0)
    top_p: float | None = Field(None, gt=0.0, le=1.0)
    top_k: int | None = Field(None, ge=0)


class BenchmarkByName(Section):
    """A shipped benchmark (``cascade_rl.evals.benchmarks``), with what should differ here."""

    use: str
    name: str | None = None
    samples: int | None = Field(None, ge=1)
    sampling: SamplingChanges = SamplingChanges()
    source: str | None = None
    """Read the rows from here instead of the hub: a file or folder."""
    limit: int | None = Field(None, ge=1)


class EvaluateConfig(Section):
    """What is measured, and when."""

    after_each_stage: list[str | BenchmarkByName | BenchmarkConfig] = []
    """Names of shipped benchmarks, or whole definitions."""
    base_model: bool = True
    """Measure the model before the first stage too."""
    every_steps: int | None = Field(None, ge=1)
    """Also measure within RL stages, every so many steps (drawn in the report)."""
    engine: EngineConfig = EngineConfig()


class LaunchConfig(Section):
    """How `cascade-rl run` calls `accelerate launch`."""

    accelerate: str | None = None
    """Path of an accelerate config file, e.g. ``launch/accelerate/gpu-8.yaml``."""


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
    stages: list[SftStage | RlStage] = Field(min_length=1)
    evaluate: EvaluateConfig = EvaluateConfig()
    tracking: TrackingConfig = TrackingConfig()
    launch: LaunchConfig = LaunchConfig()


Stage = SftStage | RlStage
KINDS: dict[str, type[StageConfig]] = {"sft": SftStage, "rl": RlStage}
"""Kind in a recipe -> its schema. `cascade_rl.stages` has the code of each."""

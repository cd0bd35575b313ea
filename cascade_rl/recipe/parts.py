"""What sections of a recipe are made of: data, sampling, rewards, optimizers. One unit throughout: batch sizes count
rows, lengths count tokens.

A field marked ``NOT_IDENTITY`` says where or how fast a stage runs, not what it computes: changing it keeps the
stage's identity, so finished work stays valid (see ``cascade_rl.store.identity``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cascade_rl.recipe.problems import Keys, Misfit

NOT_IDENTITY: dict[str, Any] = {"identity": False}
NAME_PATTERN, NAME_LENGTH = r"^[a-z0-9][a-z0-9._-]*$", 64
Name = Field(pattern=NAME_PATTERN, max_length=NAME_LENGTH)


REFERENCE = "stage:"


def stage_reference(value: Any) -> str | None:
    """``reward-model`` for ``stage:reward-model``; None for anything else."""
    return value.removeprefix(REFERENCE) if isinstance(value, str) and value.startswith(REFERENCE) else None


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    def stage_references(self) -> Iterator[tuple[Keys, str]]:
        """Keys and name of each ``stage:NAME`` in this section and in those below it."""
        for key in type(self).model_fields:
            yield from _references(getattr(self, key), (key,))

    def with_results(self, results: Mapping[str, str]) -> Self:
        """A copy in which each ``stage:NAME`` is ``results[NAME]``, in the sections below it too."""
        values = {key: getattr(self, key) for key in type(self).model_fields}
        replaced = {key: _with_results(value, results) for key, value in values.items()}
        return self.model_copy(update={key: new for key, new in replaced.items() if new is not values[key]})


class TextSection(Section):
    """Base of sections whose texts are a user's own words, and never names of stages."""

    def stage_references(self) -> Iterator[tuple[Keys, str]]:
        """None, whatever the texts begin with."""
        yield from ()


def _references(value: Any, keys: Keys) -> Iterator[tuple[Keys, str]]:
    if isinstance(value, Section):
        yield from (((*keys, *inner), name) for inner, name in value.stage_references())
    elif isinstance(value, Mapping | list | tuple):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _references(inner, (*keys, key))
    elif (name := stage_reference(value)) is not None:
        yield keys, name


def _with_results(value: Any, results: Mapping[str, str]) -> Any:
    """``value`` itself where it names no stage."""
    if not any(True for _ in _references(value, ())):
        return value
    if isinstance(value, Section):
        return value.with_results(results)
    if isinstance(value, str):
        return results[stage_reference(value) or ""]
    return _mapped(value, lambda inner: _with_results(inner, results))


def with_sections(value: Any, change: Callable[[Section], Section]) -> Any:
    """``value`` with each section in it, itself included, as ``change`` returns it; what changes is not entered."""
    if isinstance(value, Section):
        changed = change(value)
        if changed is not value:
            return changed
        inner = {key: with_sections(getattr(value, key), change) for key in type(value).model_fields}
        return value.model_copy(update={key: new for key, new in inner.items() if new is not getattr(value, key)})
    return _mapped(value, lambda each: with_sections(each, change))


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A mapping, list or tuple with each of its values changed; anything else as it is."""
    if isinstance(value, Mapping):
        return {key: change(inner) for key, inner in value.items()}
    return type(value)(map(change, value)) if isinstance(value, list | tuple) else value


def sections_below(value: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Section]]:
    """Each section below ``value``, at any depth, with its keys."""
    if isinstance(value, Section):
        inner: Any = {key: getattr(value, key) for key in type(value).model_fields}
    else:
        inner = (
            value if isinstance(value, Mapping) else dict(enumerate(value)) if isinstance(value, list | tuple) else {}
        )
    for key, each in inner.items():
        if isinstance(each, Section):
            yield (*keys, key), each
        yield from sections_below(each, (*keys, key))


class TemplateConfig(TextSection):
    """How conversations become text (``cascade_rl.data.template``)."""

    mode: Literal["thinking", "instruct", "unified", "native"] = "thinking"
    """``thinking``: every prompt carries " /think"; ``instruct``: " /no_think"; ``unified``: each row decides by its
    ``thinking`` column; ``native``: the model's own template, untouched (for models trained with another one)."""
    system: str | None = "You are a helpful and harmless assistant."
    """Default system prompt of rows that bring none; null leaves the turn out."""


class DataSource(TextSection):
    """Rows from one place. Sources of a stage are concatenated, then shuffled by the seed."""

    source: str
    """A hub id (``openai/gsm8k``), a file or folder (``.jsonl``, ``.json``, ``.parquet``, ``.arrow``; relative to
    the recipe file first, then to the working folder), or a generator of rows as ``package.module:function``."""
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
    """Column -> regular expression whose first group replaces the column, e.g. ``answer: '####\\s*(.*)$'``. A row in
    which it finds nothing is left out."""
    prompt: str | None = None
    """User message as a format string over columns (``"{question}\\n\\nThink first."``; widths up to 10000, written as
    numbers). Without it a row brings ``messages`` or ``conversations`` (a conversation) or ``prompt`` (text or
    messages)."""
    limit: int | None = Field(None, ge=1)
    """Use only the first rows."""
    repeat: int = Field(1, ge=1)
    """Upsampling: how many times each row occurs in an epoch."""
    keep: str | None = None
    """``package.module:function`` of a row that says whether it stays; rows are looked at with their columns mapped."""
    domain: str | None = None
    """Which of the stage's ``rewards`` these rows are for; without it each row says so in a column ``domain``."""
    weight: float | None = Field(None, gt=0.0)
    """Share of each step's prompts that come from this source, relative to the others' weights (RL; all sources have
    one, or none: then they are concatenated and shuffled)."""


LEAST_TEMPERATURE = 0.01
"""vLLM takes this for anything between it and 0."""


class SamplingConfig(TextSection):
    """How completions are sampled."""

    max_new_tokens: int = Field(1024, ge=1)
    """Tokens per completion, thinking included; a completion cut off here is truncated."""
    temperature: float = Field(1.0, ge=0.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    top_k: int = Field(0, ge=0)
    """0 is off."""
    stop: list[str] = []
    """Texts that end a completion as the end-of-turn token does; what was generated stays, stop text included."""

    @field_validator("stop")
    @classmethod
    def _no_empty_text(cls, stop: list[str]) -> list[str]:
        if "" in stop:
            raise ValueError("an empty text would end every completion at once; leave it out")
        return stop


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
    placement: Literal["colocated", "dedicated"] = "colocated"
    """``colocated``: an engine in each trainer rank, taking turns with it; ``dedicated``: vLLM servers of their own,
    which generate while the trainer already learns from groups that are complete."""
    servers: int = Field(1, ge=1)
    """Dedicated: how many servers the stage starts on the first host, each on its own device after the ranks'."""
    urls: list[str] = []
    """Dedicated: servers that run already, instead of starting any. They are vLLM's own, in development mode
    (``VLLM_SERVER_DEV_MODE=1``) and with ``--enable-scale-out``; who reaches them can change what they serve."""
    weight_transfer: Literal["auto", "files", "nccl"] = "auto"
    """Dedicated: how weights reach the servers. ``files``: through a folder that both see; ``nccl``: from device to
    device. ``auto``: nccl between GPUs, files otherwise."""
    sync_bucket_mib: int = Field(1024, ge=1)
    """Weights are gathered and streamed to the engine in pieces of about so many MiB."""
    rollout_timeout_s: float = Field(1800.0, gt=0.0)
    """Dedicated: a rollout that has not come back by then is asked for again."""
    rollout_attempts: int = Field(2, ge=1)
    """Dedicated: how often a rollout is asked for in all before it is given up, counted, and left out."""

    @model_validator(mode="after")
    def _one_source_of_servers(self) -> EngineConfig:
        for url in self.urls:
            if not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", url):
                raise Misfit("urls", f"`urls` are addresses such as http://node2:8000, not {url!r}")
        if len(set(self.urls)) < len(self.urls):
            raise Misfit("urls", "`urls` names a server twice")
        if self.placement == "colocated" and (self.urls or self.servers > 1):
            raise Misfit(
                "urls" if self.urls else "servers",
                "`urls` and `servers` go with `placement: dedicated`; colocated engines have no server",
            )
        if self.urls and self.servers > 1:
            raise Misfit("servers", "`urls` names servers that run already, `servers` starts some: give one of them")
        return self


class RewardConfig(Section):
    """A reward by import path; keys not listed here are handed to it as keyword arguments. ``stage:NAME`` as a value
    means the checkpoint of that stage of the recipe."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    use: str
    """``package.module:function`` or ``package.module:Class``, e.g. ``rewards.math:verify``."""
    timeout_s: float | None = Field(None, gt=0.0)
    """Hard deadline of one call. A plain reward may compute for so long (CPU time of its worker and all that this
    started, so that a busy machine changes no verdict) before the worker is killed; an async reward may take so long by
    the clock. Default: what the reward names for itself by an attribute ``timeout_s``, else 10."""
    blocked_s: float | None = Field(None, gt=0.0)
    """Clock time that a call of a plain reward may be blocked (asleep, stopped, waiting for a server) before its worker
    is killed. Default: five times ``timeout_s`` and 10 more."""
    failure: float = 0.0
    """Value of a response that hangs or kills its verifier twice, and of truncated ones under ``penalise``."""
    max_error_rate: float = Field(0.05, ge=0.0, le=1.0)
    """Share of a step's calls that may fail by the grader's own fault before the stage stops."""
    workers: int | None = Field(None, ge=1, json_schema_extra=NOT_IDENTITY)
    """Worker processes per rank; default: one per core, shared between the ranks of a host."""
    concurrency: int | None = Field(None, ge=1)
    """Calls of an async reward that are under way at the same time. Default: 64."""
    memory_limit_mib: int | None = Field(None, ge=0)
    """Address space of a worker process in MiB; 0 sets no limit. Default: 4096."""

    @property
    def params(self) -> dict[str, Any]:
        """Keyword arguments for the reward itself."""
        return dict(self.model_extra or {})

    def stage_references(self) -> Iterator[tuple[Keys, str]]:
        """The reward's own keyword arguments that are ``stage:NAME``."""
        for key, value in self.params.items():
            if (name := stage_reference(value)) is not None:
                yield (key,), name

    def with_results(self, results: Mapping[str, str]) -> Self:
        """A copy in which each keyword argument ``stage:NAME`` is ``results[NAME]``."""
        return self.model_copy(update={str(keys[0]): results[name] for keys, name in self.stage_references()})


class RopeScaling(Section):
    """More positions than a model was made for."""

    rope_type: Literal["yarn", "linear", "dynamic"] = "yarn"
    factor: float = Field(gt=1.0)
    original_max_position_embeddings: int = Field(ge=1)
    """Positions it was made for (Qwen3-8B-Base: 32768)."""

    @property
    def positions(self) -> int:
        return int(self.factor * self.original_max_position_embeddings)


class OptimizerConfig(Section):
    """AdamW and its schedule, shared by the kinds that train."""

    learning_rate: float = Field(gt=0.0, le=1.0)
    min_learning_rate: float = Field(0.0, ge=0.0)
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    lr_horizon_steps: int | None = Field(None, ge=1)
    """Step at which a decaying schedule reaches ``min_learning_rate``; default: the stage's own steps."""
    warmup_steps: int = Field(0, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0.0)
    weight_decay_on: Literal["matrices", "all"] | None = None
    """Which weights decay, in every kind of stage: ``matrices`` (weights of two dimensions or more, embeddings too, but
    no norms and biases: transformers' and Megatron's way), or ``all`` (verl's way). Default: ``matrices``."""
    grad_clip: float = Field(1.0, gt=0.0)
    """Largest global gradient norm."""

    def decays(self, dimensions: int) -> bool:
        """Whether ``weight_decay`` acts on weights of so many dimensions."""
        return self.weight_decay_on == "all" or dimensions > 1

    @field_validator("betas")
    @classmethod
    def _decays(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"AdamW's betas must be at least 0 and below 1, not {list(betas)}")
        return betas


class Exclusion(TextSection):
    """Rows to leave out because something else has them: a prompt of another stage, a category, an n-gram."""

    stage: str | None = None
    """Leave out what this stage of the recipe learns from."""
    data: list[DataSource] = []
    """Leave out what these rows ask, benchmarks say."""
    ngram: int | None = Field(None, ge=1)
    """With ``stage`` or ``data``: rows that share so many words in a row with one of theirs; default: those that ask
    the very same (spaces and case apart)."""
    where: dict[str, list[str | int | bool]] = {}
    """Column -> values: leave out rows with one of these values, in each column named."""

    @model_validator(mode="after")
    def _one_kind(self) -> Exclusion:
        if sum((self.stage is not None, bool(self.data), bool(self.where))) != 1:
            raise ValueError("give exactly one of `stage`, `data` and `where`")
        if self.ngram is not None and self.where:
            raise Misfit("ngram", "`ngram` goes with `stage` or `data`; `where` compares values of columns")
        return self

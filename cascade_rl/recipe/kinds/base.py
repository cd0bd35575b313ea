"""What every stage has, and what it answers for its kind.

Nobody outside the modules of a kind asks which kind a stage is. What they need to know they ask here: the base has
answers that are true of a stage with nothing special, and a kind says what is otherwise. What the base can find out
by itself (data, models of other stages, rewards anywhere in the section), no kind can forget to say.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field

from cascade_rl.recipe.measuring import PairBenchmark
from cascade_rl.recipe.methods import LoraConfig, ShardingConfig, TeacherConfig
from cascade_rl.recipe.parts import (
    NOT_IDENTITY,
    DataSource,
    Exclusion,
    Name,
    OptimizerConfig,
    RewardConfig,
    RopeScaling,
    Section,
    TemplateConfig,
    sections_below,
    with_sections,
)
from cascade_rl.recipe.problems import Keys

Found = Iterator[tuple[Keys, str]]
"""Keys below the stage, message."""
Result = Literal["language model", "reward model"]


class Positions(NamedTuple):
    """How many tokens the model of a stage must be able to read at once."""

    keys: Keys
    """The key that decides it."""
    tokens: int
    what: str
    """How it comes about, for a message: ``max_prompt_tokens 512 + max_new_tokens 1024 = 1536``."""


class UserFunction(NamedTuple):
    """A loss or advantage of the user's."""

    use: str
    params: Mapping[str, Any]
    with_reference: bool = False
    """Whether it is called with log-probs of the reference model."""
    group_size: int = 0
    """Rollouts of a group, for an advantage."""


class Panel(NamedTuple):
    """A curve of a stage in the report."""

    metric: str
    title: str
    scale: float = 1.0


class StageConfig(OptimizerConfig):
    """Keys of every stage."""

    REVISIONS: ClassVar[Mapping[int, str]] = {}
    """Revisions of the kind after the first, each with what it computes otherwise. Raised when results change although
    no key does, so that old results are not taken for new ones."""
    CODE: ClassVar[str] = ""
    """The module whose ``run(context)`` carries the stage out. Default: ``cascade_rl.stages.KIND``."""
    ALSO_CALLED: ClassVar[Sequence[str]] = ()
    """Words for the kind in other frameworks, for the message about a kind that does not exist."""
    TITLE: ClassVar[str] = ""
    """Heading in the report. Default: the kind."""
    BAND: ClassVar[str] = "#F4F4F4"
    """Colour behind such a stage in the report's figure of the whole cascade."""
    PANELS: ClassVar[Sequence[Panel]] = (Panel("loss", "loss, nats per trained token"),)
    """The curves of such a stage in the report. Of stages that do not sample the first is drawn, on a log scale."""
    READS: ClassVar[Literal["conversations", "prompts", "pairs"]] = "conversations"
    """What a row of ``data`` must hold."""
    RESULT: ClassVar[Result] = "language model"
    STARTS_FROM: ClassVar[Sequence[Result]] = ("language model",)
    """Results of other stages that it can start from."""
    IS_SIDE_BRANCH: ClassVar[bool] = False
    """Whether the stage after it starts from its parent instead of from it."""
    SAMPLES: ClassVar[bool] = False
    """Whether it learns from what the policy itself samples: it has rollouts, and may be measured between steps."""
    MEASURED_ON: ClassVar[Literal["benchmarks", "pairs"]] = "benchmarks"
    """``benchmarks``: those of the recipe; ``pairs``: its ``own_benchmarks``, by ``measure_missing(context)`` of
    ``CODE``."""
    OWN_TEMPLATE: ClassVar[bool] = False
    """Whether a model from outside of the recipe keeps the template that it was trained with."""
    DECAYED_BEFORE: ClassVar[Literal["matrices", "all"]] = "matrices"
    """``weight_decay_on`` of stages from before there was the key: such stages keep their identities."""

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

    # ---- what the stage reads

    @property
    def data_lists(self) -> dict[str, list[DataSource]]:
        """Key -> sources, of each key that is a list of data sources. They count in the identity by what they hold."""
        lists = {key: value for key in type(self).model_fields if isinstance(value := getattr(self, key), list)}
        return {k: v for k, v in lists.items() if v and all(isinstance(each, DataSource) for each in v)}

    @property
    def rewards_by_domain(self) -> Mapping[str, RewardConfig]:
        """Domain -> reward; a single reward has the empty name."""
        return {}

    @property
    def teachers_by_domain(self) -> Mapping[str, TeacherConfig]:
        """Domain -> teacher; a single teacher has the empty name."""
        return {}

    def keys_of(self, section: Section) -> Keys:
        """The keys at which one of the stage's own sections stands. Raises LookupError for any other section."""
        for keys, each in sections_below(self):
            if each is section:
                return keys
        raise LookupError(f"stage {self.name} has no such {type(section).__name__}")

    def is_by_domain(self, sections: Mapping[str, Section]) -> bool:
        """Whether ``rewards_by_domain`` or ``teachers_by_domain`` names domains: a single one has the empty name, which
        is no key of it."""
        return any(self.keys_of(section)[-1] == domain for domain, section in sections.items())

    def with_models(self, locate: Callable[[str], str]) -> Self:
        """A copy in which ``locate`` gives each teacher's model that is no ``stage:NAME``."""

        def located(section: Section) -> Section:
            if not isinstance(section, TeacherConfig) or section.model is None or section.stage is not None:
                return section
            return section.model_copy(update={"model": locate(section.model)})

        return with_sections(self, located)

    @property
    def functions(self) -> Mapping[str, UserFunction]:
        """Key -> function of the user's that the key names by its import path."""
        return {}

    @property
    def takes_from(self) -> set[str]:
        """Stages whose results it reads beside its parent's: every ``stage:NAME`` in the section."""
        return {name for _, name in self.stage_references()}

    @property
    def replaces_groups(self) -> bool:
        """Whether it must know the values of a group while others generate, to replace groups without variance."""
        return False

    def refuse_unnamed(self) -> None:
        """Raise TypeError for a reward or teacher that the kind does not name: its identity would not see it."""
        said = [id(each) for each in (*self.rewards_by_domain.values(), *self.teachers_by_domain.values())]
        for keys, section in sections_below(self):
            if isinstance(section, RewardConfig | TeacherConfig) and id(section) not in said:
                where = ".".join(map(str, keys))
                raise TypeError(
                    f"{type(self).__name__} has a {type(section).__name__} at {where}, which rewards_by_domain or "
                    "teachers_by_domain of the kind must give"
                )

    # ---- the size of a step

    @abstractmethod
    def rows_per_step(self) -> tuple[str, int]:
        """The key that says how many rows, pairs or prompts a step takes over all ranks, and how many these are."""

    @property
    def rows_per_pass(self) -> tuple[str, int] | None:
        """The key that fixes how many rows of a rank go through the model at once, and how many; None: by tokens."""
        return None

    @property
    def known_steps(self) -> int | None:
        """Optimizer steps of the stage; None where they follow from its rows."""
        return None

    @property
    def total_prompts(self) -> int | None:
        """Prompts of the whole stage; None for a stage that does not sample, whose sources have no weights."""
        return None

    @abstractmethod
    def longest_tokens(self) -> Positions:
        """The most tokens that one sequence of the stage can have."""

    @abstractmethod
    def arithmetic(self, processes: int) -> str:
        """What a step on so many ranks is made of, for ``check``."""

    # ---- what goes together, and what acts

    @property
    def trained_by(self) -> Literal["trl"] | None:
        """A trainer other than that of all kinds."""
        return None

    @property
    def needs_whole_rollouts(self) -> str | None:
        """The choice that needs all tokens of a rollout on one rank, as in ``mask: geometric``."""
        return None

    def contradictions(self) -> Found:
        """Keys of a valid stage that make no sense together, or that nothing would act on."""
        if self.min_learning_rate > self.learning_rate:
            yield ("min_learning_rate",), f"{self.min_learning_rate:g} is above learning_rate {self.learning_rate:g}"
        if self.known_steps is not None and self.warmup_steps >= self.known_steps:
            yield ("warmup_steps",), f"{self.warmup_steps} warm-up steps leave nothing of {self.known_steps} steps"
        if self.lr_schedule == "constant":
            message = "does nothing under `lr_schedule: constant`; name another schedule, or leave it out"
            if self.min_learning_rate:
                yield ("min_learning_rate",), message
            if self.lr_horizon_steps:
                yield ("lr_horizon_steps",), message

    def notes(self) -> list[str]:
        """What a person should know about choices that are allowed, but do less than they seem to."""
        return []

    # ---- its identity

    @classmethod
    def revision(cls) -> int:
        """The revision of the kind that computes stages now; 1 is the first."""
        return max(cls.REVISIONS, default=1)

    def identity_changes(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The keys in ``fields`` as the identity has them: a kind leaves out what changes no result, and adds what
        distinguishes a result from one of an earlier version under the same keys."""
        return fields

    # ---- how it is measured and shown

    @property
    def own_benchmarks(self) -> list[str | PairBenchmark]:
        """What a result that is ``MEASURED_ON`` pairs is measured on."""
        return []

    @property
    def own_template(self) -> TemplateConfig | None:
        """A template in place of the recipe's."""
        return None

    @classmethod
    def live_line(cls, metrics: Mapping[str, Any]) -> list[str]:
        """The few numbers of a step worth a line on the terminal, as ``loss 1.234``."""
        return [f"loss {metrics['loss']:.3f}"] if "loss" in metrics else []


class LanguageModelStage(StageConfig):
    """Keys of stages that train a language model, and no reward model."""

    lora: LoraConfig | None = None
    """Default: all weights are trained."""
    logprob_chunk_tokens: int | None = Field(None, ge=1, json_schema_extra=NOT_IDENTITY)
    """Tokens whose vocabulary row is held in memory at once; default: as many as fit a quarter of a GiB (CPU) or one
    GiB (GPU)."""

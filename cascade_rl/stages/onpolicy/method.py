"""What makes an on-policy method: training sequences of groups, a token loss, metrics, and how rollouts are scored.

``loop.train`` runs any ``Method``. ``cascade_rl.stages.rl`` and ``cascade_rl.stages.distill`` each hold one, with all
of its maths.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from torch import Tensor

from cascade_rl.algorithms.logprobs import TokenScores
from cascade_rl.data.template import Template
from cascade_rl.recipe import RolloutStage
from cascade_rl.stages.context import Context
from cascade_rl.stages.onpolicy.collect import Collected
from cascade_rl.stages.onpolicy.options import RolloutOptions
from cascade_rl.stages.onpolicy.run import RolloutRun
from cascade_rl.stages.onpolicy.scoring import RolloutScorer
from cascade_rl.training.packing import MicroBatch, TrainingSequence
from cascade_rl.training.reference import Reference
from cascade_rl.training.update import Screen, UpdateStats
from cascade_rl.types import Group, Prompt

Config = TypeVar("Config", bound=RolloutStage)
Gather = Callable[[Any], list[Any]]
"""A collective call: returns what every rank hands in, in rank order."""
Groups = Mapping[int, Group]
"""Position of a prompt in its step -> its group, in ascending order."""
Sequences = dict[int, list[TrainingSequence]]
"""Position of a prompt in its step -> what is learned from its group."""


class MethodLoss(Protocol):
    """The loss of a packed row's trained tokens (``training.update.TokenLoss``), and what is measured beside it."""

    def __call__(self, row: MicroBatch, part: slice, logprobs: Tensor, entropy: Tensor) -> Tensor:
        """Loss terms [n] of the tokens ``part`` of ``row``, before they are weighed and divided."""
        ...

    def denominator(self, *, tokens: int, rollouts: int) -> float:
        """What the sum of weighed terms is divided by, from the trained tokens and rollouts of all ranks."""
        ...

    @property
    def screen(self) -> Screen | None:
        """What must see whole rollouts before the loss: each row is scored once more. None: nothing does."""
        ...

    def measures(self, row: MicroBatch, scores: TokenScores) -> dict[str, Tensor]:
        """Name -> [N] values whose mean over tokens is a metric."""
        ...

    def measured(self, row: MicroBatch) -> Tensor:
        """[N] bool: the tokens that metrics of policy and sampling are measured on."""
        ...

    def metrics(self, stats: UpdateStats) -> dict[str, float]:
        """The metrics of an update, by the names of metrics.jsonl."""
        ...


class Method(ABC, Generic[Config]):
    """One on-policy method in one stage. What has a default here is true of a method with nothing special."""

    updates_per_batch: int = 1
    """Optimizer steps that a batch of rollouts is cut into."""
    learns_early: bool = True
    """Whether groups may be trained on while others of the step still generate."""
    needs_whole_batch: bool = False
    """Whether the sequences of a group depend on the groups of all ranks in the step."""
    reference: Reference | None = None
    """Fills in the log-probs that the loss compares the policy with: a KL reference, or teachers. None: there is none.
    """
    reference_lane: str = "reference"
    """The lane of the step's trace in which ``reference`` works."""
    lanes: ClassVar[Mapping[str, str]] = {}
    """Lane of the step's trace -> metric of the seconds it was busy, beside those that every method has."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def options(self) -> RolloutOptions:
        """How rollouts are collected, beside the keys of every stage that learns from rollouts."""
        return RolloutOptions()

    @abstractmethod
    def open_scorer(
        self, context: Context, template: Template, search: list[Path]
    ) -> AbstractContextManager[RolloutScorer]:
        """What scores each rollout as it ends. ``search``: where import paths of the recipe are looked up."""

    def check_prompts(self, prompts: Sequence[Prompt], search: list[Path]) -> None:
        """Raise CascadeError for prompts that the stage cannot learn from, before any model is loaded."""

    def prepare(self, run: RolloutRun) -> None:
        """Called once everything of the stage is open, before anything is resumed. A collective call."""

    def shape(self, group: Group) -> Group:
        """A scored group with the values that count: whatever is added to or taken off the scores."""
        return group

    def check(self, groups: Sequence[Group], gather: Gather) -> None:
        """Raise CascadeError, on all ranks alike, where nothing must be learned from ``groups``. A collective call."""

    @abstractmethod
    def sequences(self, groups: Groups, gather: Gather) -> Sequences:
        """What is learned from each group, with advantages and weights; an empty list where there is nothing.

        It is asked once a step for all groups of this rank. Where groups are trained on early (never with
        ``needs_whole_batch``), it is also asked for single groups, and must not call ``gather`` then.
        """

    def has_gradient(self, sequence: TrainingSequence) -> bool:
        """Whether a sequence has to go through the policy. The others count in the denominator alone."""
        return True

    @property
    @abstractmethod
    def loss(self) -> MethodLoss:
        """The token loss."""

    @abstractmethod
    def metrics(self, groups: Sequence[Group], gather: Gather) -> dict[str, float]:
        """Metrics of the step's rollouts. A collective call."""

    def warn(self, metrics: Mapping[str, float], step: int, say: Callable[[str], object]) -> None:
        """Say what a person should know about the metrics of ``step``."""

    def recorded(self, collected: Collected, sequences: Sequences) -> list[Group]:
        """The step's groups as they are written down for people to read. ``sequences``: as they were trained on."""
        return collected.everything

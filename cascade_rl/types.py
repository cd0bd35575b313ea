"""Records that cross the borders between rooms. Small, frozen, standard library only.

Dimensions, everywhere in the project: ``P`` prompts, ``G`` rollouts per prompt, ``B = P * G`` (prompt-major),
``T`` tokens, ``V`` vocabulary, ``H`` hidden. Ragged lists are written ``[P][G]``.

A worked example: the row ``{"question": "1+1?", "answer": "2"}`` becomes
``Prompt(id="gsm8k:0", messages=({"role": "user", "content": "1+1?"},), columns={"answer": "2"})``; the engine
returns ``G`` rollouts of it, each is scored, and the ``Group`` of all of them is what advantages are computed from.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]
"""One chat turn: ``role`` and ``content``, and whatever else the template understands."""


class CascadeError(Exception):
    """A fault the user can act on: its text says what is wrong, where, and what to do. Shown without a stack trace."""


class Preempted(Exception):
    """Raised inside a stage after SIGTERM once its state is saved, where time allows; the process then exits with
    ``EXIT_RESUME``."""


EXIT_RESUME = 75
"""Exit code for "stopped on request, start me again" (``EX_TEMPFAIL`` of sysexits.h)."""


class Stop(enum.StrEnum):
    """Why a rollout ended."""

    EOS = "eos"
    LENGTH = "length"
    STRING = "string"
    """At one of the stage's stop texts."""
    ABORT = "abort"
    """It never came back, or was no longer wanted: it counts nowhere."""


@dataclass(frozen=True)
class Prompt:
    """One row of data: what the model is asked, and the columns its reward reads."""

    id: str
    messages: tuple[Message, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)
    thinking: bool | None = None
    """The row's own mode flag; None takes the recipe's template mode."""
    domain: str = ""
    """Which of a stage's rewards it is for; empty where there is only one."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Tools that the system prompt lists, in the form of OpenAI's chat API."""


@dataclass(frozen=True)
class Rollout:
    """One sampled completion. ``token_ids`` ends with the EOS token when ``stop`` is EOS."""

    prompt_id: str
    index: int
    """Which of the prompt's G rollouts this is."""
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Engine log-probabilities of ``token_ids``, same length."""
    text: str
    """Decoded completion without the EOS token."""
    stop: Stop
    version: int
    """Optimizer step whose weights produced it."""
    kept: Any = field(default=None, compare=False)
    """Array [n, K] of int32, filled up with -1: the ids that top-k and top-p left for each token, itself among them.
    None where nobody asked for them."""

    @property
    def truncated(self) -> bool:
        return self.stop is Stop.LENGTH


@dataclass(frozen=True)
class Score:
    """A reward's verdict on one rollout.

    ``error`` is set when the grader itself failed (exception, judge down): such a rollout leaves the batch and
    is counted. A response that hangs or kills its grader is not an error: it has earned the failure value.
    """

    value: float
    details: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Group:
    """The G rollouts of one prompt with their scores, in rollout order; fewer where some never came back."""

    prompt: Prompt
    prompt_token_ids: tuple[int, ...]
    rollouts: Sequence[Rollout]
    scores: Sequence[Score]

    def members(self, truncated_out: bool) -> list[int]:
        """Indices of the rollouts that count: neither lost nor failed in grading, nor truncated where those are left
        out."""
        return [
            index
            for index, (rollout, score) in enumerate(zip(self.rollouts, self.scores, strict=True))
            if score.error is None and rollout.stop is not Stop.ABORT and not (truncated_out and rollout.truncated)
        ]

    def is_flat(self, truncated_out: bool) -> bool:
        """Whether all that count have one value, which teaches nothing."""
        return len({self.scores[index].value for index in self.members(truncated_out)}) < 2

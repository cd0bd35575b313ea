"""Human preference: what a reward model thinks of an answer (recipe.md sections 5, 6.1 and 6.2).

- ``PreferenceReward``: its raw score, with RLHF's rule against leaving the prompt's language.
- ``VerifiedPreference``: instruction following of the thinking models, a verifier's verdict lifted by preference.

The reward model is a one-label sequence classifier: in the stage's own processes, or behind ``url:`` of a vLLM pooling
server. It is shown the conversation and the text after ``</think>``, or all of a completion without that tag.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cascade_rl.rewarding import RewardError, awaiting
from cascade_rl.rewarding.nested import NestedReward
from cascade_rl.rewarding.reward_model import RewardModel, RewardModelError
from cascade_rl.rewarding.reward_text import answer_of
from cascade_rl.types import CascadeError, Group, Message, Prompt, Rollout, Score
from rewards.language import foreign
from rewards.preference_server import ServedRewardModel

Gather = Callable[[Any], list[Any]]
"""Returns what every rank hands to it, in rank order."""
Raw = float | str
"""A reward model's score, or why there is none."""

PENALTY = 10.0
"""Below the lowest score of the step (P1; recipe.md section 6)."""
EPSILON = 1e-6
"""Added to the standard deviation, as for advantages: answers that differ by rounding alone stay close to z = 0."""
DETECTORS = ("script", "words", "cld2")
ENGLISH = "A question in English."
VERIFIER = "rewards.instruction_following:verify"


class PreferenceReward:
    """A reward model's raw score of (conversation, answer), unbounded.

    ``mixed_language: penalise`` (as published): a completion, thinking and answer, that leaves the Latin script of its
    prompt (by ``detector``, see ``rewards.language``) gets the lowest raw score of the whole step, over all ranks, less
    10. ``ignore`` gives every one its score. The raw score stays in the details, under ``parts: {rm: ...}``. Truncated
    completions are scored where the stage says ``overlong: score``, as published; under ``penalise`` they keep the
    recipe's ``failure``, a number that means little beside unbounded scores.

    ``url``: of a vLLM pooling server with the same model, asked while others still generate; ``model`` then lends its
    tokenizer and template only. The other options are those of ``RewardModel`` and ``ServedRewardModel``.
    """

    timeout_s = 600.0
    """Where a recipe names none: a served model's, for all tries together."""

    def __init__(
        self,
        model: str,
        url: str | None = None,
        mixed_language: str = "penalise",
        detector: str = "words",
        read_at: str = "end_of_turn",
        dtype: str = "auto",
        tokens_per_micro_batch: int = 16384,
        offload: bool = False,
        shard: bool = False,
        served_model: str | None = None,
        api_key_env: str | None = None,
        tries: int = 5,
        request_timeout_s: float = 120.0,
    ) -> None:
        """Looks at no file and no server. Raises RewardError or RewardModelError for options that make no sense."""
        if mixed_language not in ("penalise", "ignore"):
            raise RewardError(f"mixed_language must be penalise or ignore, not {mixed_language!r}")
        if detector not in DETECTORS:
            raise RewardError(f"detector must be one of {', '.join(DETECTORS)}, not {detector!r}")
        self._penalises, self._detector = mixed_language == "penalise", detector
        self._backend: RewardModel | ServedRewardModel
        if url is None:
            self._backend = RewardModel(
                model, dtype=dtype, tokens_per_micro_batch=tokens_per_micro_batch, offload=offload, shard=shard,
                read_at=read_at,
            )  # fmt: skip
        else:
            self._backend = ServedRewardModel(
                model, url, served_model=served_model, api_key_env=api_key_env, tries=tries,
                request_timeout_s=request_timeout_s, read_at=read_at,
            )  # fmt: skip

    async def score(self, completion: str, messages: Sequence[Message]) -> Score:
        """The raw score where a server gives it; without one ``combine`` has it computed for the whole step."""
        if isinstance(self._backend, RewardModel):
            return awaiting("rewards.preference:PreferenceReward")
        raw = await self._backend.ask(messages, answer_of(completion))
        return Score(raw, {"parts": {"rm": raw}})

    def combine(self, groups: Sequence[Group], gather: Gather) -> list[list[Score]]:
        """The final values. A collective call. Raises RewardModelError when the model cannot be used at all."""
        raws: list[list[Raw | None]]  # None: settled before the reward was asked
        if isinstance(self._backend, RewardModel):
            raws = _scored_here(self._backend, groups, gather, skip_settled=True)
        else:
            raws = [[_given(score) for score in group.scores] for group in groups]
        lowest = min(gather(min((raw for row in raws for raw in row if isinstance(raw, float)), default=math.inf)))
        return [
            [
                before if raw is None else self._final(group.prompt, rollout, raw, lowest)
                for rollout, before, raw in zip(group.rollouts, group.scores, row, strict=True)
            ]
            for group, row in zip(groups, raws, strict=True)
        ]

    def _final(self, prompt: Prompt, rollout: Rollout, raw: Raw, lowest: float) -> Score:
        if isinstance(raw, str):
            return Score(0.0, {}, raw)
        details: dict[str, Any] = {"parts": {"rm": raw}}
        found = self._left_language(prompt, rollout.text) if self._penalises else None
        if found is None:
            return Score(raw, details)
        return Score(lowest - PENALTY, {**details, "foreign": found})

    def _left_language(self, prompt: Prompt, completion: str) -> str | None:
        """What in ``completion`` is not in the language of a prompt that is purely in Latin script; else None."""
        asked = "\n".join(_text(message) for message in prompt.messages)
        # The published rule is about purely English prompts: others may be answered in kind.
        if foreign(asked, ENGLISH, "script"):
            return None
        return foreign(completion, asked, self._detector)


class VerifiedPreference:
    """IF-RL's reward of the thinking models: 1 + sigmoid(z) for an answer that ``verifier`` passes, 0 for any other.

    z = (rm - mean) / (std + 1e-6) over the whole group, passing or not, with the sample standard deviation; 0 in a
    group of equal scores. So a passing answer has between 1 and 2, and preference counts only among those that pass.

    ``verifier``: an import path, given its columns by name; keys of the section that are none of ours are its options.
    Truncated answers do not pass, unless the stage says ``overlong: score`` and the verifier does; they are part of
    their group's mean either way. Details: ``parts: {verified: ..., rm: ...}``. Other options as for
    ``PreferenceReward``; with ``url``, ``at_once`` requests are under way.
    """

    combines_groups_alone = True
    """z is within a group. Not with ``shard``: there every forward pass needs all ranks."""

    def __init__(
        self, model: str, verifier: str = VERIFIER, url: str | None = None, at_once: int = 64, **options: Any
    ) -> None:
        """Looks at no file and no server. Raises RewardError for a verifier that cannot be loaded, or unknown keys."""
        if verifier == VERIFIER:
            import rewards.instruction_following  # noqa: F401  (a stage's identity follows what is imported by name)
        kind = RewardModel if url is None else ServedRewardModel
        ours = {key for one in (RewardModel, ServedRewardModel) for key in inspect.signature(one).parameters}
        known = set(inspect.signature(kind).parameters)
        theirs = {key: value for key, value in options.items() if key not in ours}
        if misplaced := sorted(set(options) - set(theirs) - known):
            raise RewardError(
                f"{', '.join(misplaced)}: only for a reward model {'with' if url is None else 'without'} url"
            )
        self._verifier = NestedReward(verifier, theirs)
        own = {key: value for key, value in options.items() if key in known}
        self._backend: RewardModel | ServedRewardModel
        self._backend = RewardModel(model, **own) if url is None else ServedRewardModel(model, url, **own)
        self._at_once = at_once
        self.combines_groups_alone = not own.get("shard", False)
        self._runner: asyncio.Runner | None = None

    def score(
        self, response: str, completion: str, messages: Sequence[Message], truncated: bool, **columns: Any
    ) -> Score:
        """The verifier's verdict; the rest is for ``combine``. Raises what the verifier raises."""
        return self._verifier.score(response, completion, messages, truncated, columns)

    def combine(self, groups: Sequence[Group], gather: Gather) -> list[list[Score]]:
        """The final values. A collective call. Raises RewardModelError when the model cannot be used at all."""
        if isinstance(self._backend, RewardModel):
            raws = _scored_here(self._backend, groups, gather, skip_settled=False)
        else:
            self._runner = self._runner or asyncio.Runner()  # one loop for good: connections belong to it
            raws = self._runner.run(_asked_for(self._backend, groups, self._at_once))
        return [_lifted(group, row) for group, row in zip(groups, raws, strict=True)]


def standardised(values: Sequence[float]) -> list[float]:
    """(value - mean) / (std + 1e-6) with the sample standard deviation; zeros for equal values, or a single one."""
    if len(set(values)) < 2:
        return [0.0] * len(values)
    mean = math.fsum(values) / len(values)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return [(value - mean) / (std + EPSILON) for value in values]


def _is_settled(score: Score) -> bool:
    """Whether it is the recipe's ``failure``, given to what was truncated, or hung or killed its verifier."""
    return any(score.details.get(why) for why in ("truncated", "timeout", "crashed"))


def _given(score: Score) -> Raw | None:
    return score.error if score.error is not None else None if _is_settled(score) else score.value


def _lifted(group: Group, raws: Sequence[Raw | None]) -> list[Score]:
    """1 + sigmoid(z) where the verifier's score in ``group`` passes, else 0."""
    places = [place for place, raw in enumerate(raws) if isinstance(raw, float)]
    found = standardised([raw for raw in raws if isinstance(raw, float)])
    z = dict(zip(places, found, strict=True))
    scores = []
    for place, (before, raw) in enumerate(zip(group.scores, raws, strict=True)):
        if isinstance(raw, str):
            scores.append(Score(0.0, {}, raw))
            continue
        settled = _is_settled(before)
        passes = before.value >= 1.0 and not settled
        value = 1.0 + _sigmoid(z[place]) if passes else before.value if settled else 0.0
        scores.append(Score(value, {"parts": {"verified": float(passes), "rm": raw}}))
    return scores


def _scored_here(
    model: RewardModel, groups: Sequence[Group], gather: Gather, skip_settled: bool
) -> list[list[Raw | None]]:
    """By the model in this process; None for what is skipped."""
    wanted = [[not (skip_settled and _is_settled(score)) for score in group.scores] for group in groups]
    conversations = [
        (group.prompt.messages, answer_of(rollout.text))
        for group, row in zip(groups, wanted, strict=True)
        for rollout, is_wanted in zip(group.rollouts, row, strict=True)
        if is_wanted
    ]
    found = (str(one) if isinstance(one, RewardModelError) else one for one in model.score(conversations, gather))
    return [[next(found) if is_wanted else None for is_wanted in row] for row in wanted]


async def _asked_for(server: ServedRewardModel, groups: Sequence[Group], at_once: int) -> list[list[Raw | None]]:
    slots = asyncio.Semaphore(at_once)

    async def ask(prompt: Prompt, rollout: Rollout) -> Raw:
        async with slots:
            try:
                return await server.ask(prompt.messages, answer_of(rollout.text))
            except CascadeError as error:
                return str(error)

    flat = iter(await asyncio.gather(*(ask(group.prompt, one) for group in groups for one in group.rollouts)))
    return [[next(flat) for _ in group.rollouts] for group in groups]


def _sigmoid(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z)) if z >= 0 else math.exp(z) / (1.0 + math.exp(z))


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        return "\n".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return content or ""

"""A reward tried on a few rows before any device is taken: does it raise, does it hang, does it see a right answer?

Where a row carries a reference (``REFERENCES``), a correct response can be made from it: the reference itself, boxed,
in a code block or in answer tags. One of these must score otherwise than an empty response, or the reward is blind to
what it is meant to see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cascade_rl.rewarding.loading import load_reward
from cascade_rl.rewarding.records import RewardError, RewardSettings
from cascade_rl.rewarding.response import END_OF_THINKING
from cascade_rl.rewarding.scorer import Scorer
from cascade_rl.types import Prompt, Rollout, Score, Stop

if TYPE_CHECKING:
    from cascade_rl.recipe.parts import RewardConfig

ROWS = 3
REFERENCES = ("answer", "reference_answer", "reference", "ground_truth", "target", "solution", "expected", "gold")
"""Columns that data sets keep their right answers in."""
WHOLE = ("response", "completion")
"""Columns with a whole right answer of a model, as rows for SFT have it."""
FORMS = ("{}", "\\boxed{{{}}}", "<answer>{}</answer>", "```python\n{}\n```")


@dataclass(frozen=True)
class Trial:
    """What the sample rows showed. All empty: nothing to complain of."""

    fatal: str = ""
    """Why no row at all can be scored."""
    warnings: tuple[str, ...] = ()


def try_reward(
    config: RewardConfig | RewardSettings, search: Sequence[Path], prompts: Sequence[Prompt], thinking: bool
) -> Trial:
    """Score an empty response and correct ones for the first ``ROWS`` of ``prompts``.

    An async reward is not called: it asks a server, which need not be up when a recipe is checked.
    """
    try:
        loaded = load_reward(config, search)
        if loaded.is_async:
            return Trial()
        # A check must not wait long for a reward that sleeps.
        settings = replace(loaded.settings, blocked_s=loaded.settings.blocked_s or loaded.settings.timeout_s)
        with Scorer(settings, search, workers=1, thinking_default=thinking) as scorer:
            return _judged(loaded.settings.use, _Asked(scorer, thinking), prompts[:ROWS], loaded.has_combine)
    except RewardError as error:
        return Trial(fatal=str(error))


@dataclass(frozen=True)
class _Asked:
    """Hands texts to the scorer as the stage would."""

    scorer: Scorer
    thinking: bool

    def __call__(self, prompt: Prompt, answer: str, *, whole: bool = False) -> Future[Score]:
        thinks = self.thinking if prompt.thinking is None else prompt.thinking
        text = answer if whole or not thinks else f"<think>\n\n{END_OF_THINKING}\n\n{answer}"
        return self.scorer.submit(prompt, Rollout(prompt.id, 0, (), (), text, Stop.EOS, 0))


def _judged(use: str, ask: _Asked, prompts: Sequence[Prompt], is_combined: bool) -> Trial:
    rows = [
        (ask(prompt, ""), [ask(prompt, text, whole=whole) for text, whole in correct_responses(prompt)])
        for prompt in prompts
    ]
    empty = [future.result() for future, _ in rows]
    correct = [[future.result() for future in futures] for _, futures in rows]
    failed = [score for score in empty if score.error is not None]
    if failed and len(failed) == len(empty):
        return Trial(fatal=f"{failed[0].error} (on all of {len(empty)} sample rows, for an empty response)")
    warnings = []
    if failed:
        warnings.append(
            f"on {len(failed)} of {len(empty)} sample rows an empty response is an error of the grader: "
            f"{failed[0].error}"
        )
    if any(score.details.get("timeout") or score.details.get("crashed") for score in empty):
        warnings.append(f"{use} hangs or dies on an empty response")
    pairs = [(none, [s for s in some if s.error is None]) for none, some in zip(empty, correct, strict=True) if some]
    pairs = [(none, some) for none, some in pairs if none.error is None and some]
    if pairs and not is_combined:
        warnings += _blindness(use, pairs)
    return Trial(warnings=tuple(warnings))


def _blindness(use: str, pairs: Sequence[tuple[Score, list[Score]]]) -> Iterator[str]:
    if all(score.value == none.value for none, some in pairs for score in some):
        yield (
            f"{use} gives {pairs[0][0].value:g} to an empty response and to the reference answer alike (as it is, "
            f"boxed, in answer tags, in a code block) on all of {len(pairs)} sample rows: does it read what it should?"
        )
    elif all(max(score.value for score in some) < none.value for none, some in pairs):
        yield f"{use} gives more to an empty response than to the reference answer on all of {len(pairs)} sample rows"


def correct_responses(prompt: Prompt) -> list[tuple[str, bool]]:
    """Texts that are right, at least one of them, and whether each is all that a model wrote; none without a
    reference."""
    found: list[tuple[str, bool]] = []
    for name in REFERENCES:
        value: Any = prompt.columns.get(name)
        if isinstance(value, str | int | float) and str(value).strip():
            found += [(form.format(value), False) for form in FORMS]
    for name in WHOLE:
        value = prompt.columns.get(name)
        if isinstance(value, str) and value.strip():
            found.append((value, END_OF_THINKING in value))
    return found

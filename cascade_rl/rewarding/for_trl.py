"""Our rewards in TRL's trainers::

GRPOTrainer(model, reward_funcs=[trl_reward("rewards.math:verify")], train_dataset=rows_with_answers)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cascade_rl.processes import cores
from cascade_rl.rewarding.adapters import TRL_GIVES
from cascade_rl.rewarding.records import RewardError, RewardSettings
from cascade_rl.rewarding.scorer import Scorer
from cascade_rl.types import Message, Prompt, Rollout, Stop


def trl_reward(
    use: str, *, mode: str = "thinking", workers: int | None = None, timeout_s: float = 30.0, failure: float = 0.0,
    blocked_s: float | None = None, search: Sequence[Path] = (), **params: Any,
) -> Callable[..., list[float | None]]:  # fmt: skip
    """One of our rewards as a function for TRL's ``GRPOTrainer(reward_funcs=[...])``.

    Scored in our worker processes, under the same deadlines. A grader's error is ``None``, which TRL leaves out.
    ``mode``: ``thinking`` scores what follows ``</think>``, ``instruct`` all of a completion without the tag.

    Raises RewardError as ``load_reward`` does.
    """
    if mode not in ("thinking", "instruct"):
        raise RewardError(f"mode must be thinking or instruct, not {mode!r}")
    settings = RewardSettings(use, params, timeout_s, failure, blocked_s=blocked_s)
    scorer = Scorer(settings, [*search, Path.cwd()], workers or cores(), mode == "thinking")

    def reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        rows = [
            {name: values[place] for name, values in columns.items() if name not in TRL_GIVES}
            for place in range(len(completions))
        ]
        waiting = [
            scorer.submit(
                Prompt(str(place), _messages(prompts[place]), row),
                Rollout(str(place), 0, (), (), _text(completions[place]), Stop.EOS, 0),
            )
            for place, row in enumerate(rows)
        ]
        scores = [future.result() for future in waiting]
        return [None if score.error else score.value for score in scores]

    reward.__name__ = use.replace(":", ".")  # the name of its column in TRL's logs
    return reward


def _messages(prompt: Any) -> tuple[Message, ...]:
    return ({"role": "user", "content": prompt},) if isinstance(prompt, str) else tuple(prompt)


def _text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    return "".join(str(message.get("content") or "") for message in completion if message.get("role") == "assistant")

"""Whether a stage's rows go with its rewards or teachers, before any model or engine is loaded.

`cascade-rl check` finds the same in local data. Rows of the hub are first read by the stage itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from cascade_rl.recipe import RewardConfig, RlStage
from cascade_rl.rewarding import load_reward
from cascade_rl.rewarding.binding import unbound, without_domain
from cascade_rl.types import CascadeError, Prompt


def refuse_unfit(config: RlStage, prompts: Sequence[Prompt], search: Sequence[Path]) -> None:
    """Raise CascadeError for prompts of a domain without a reward, and for a parameter of a reward that no prompt of
    its domain has a column for."""
    if config.rewards:
        refuse_domains(config.name, prompts, config.rewards, "rewards")
    for domain, reward in config.rewards_by_domain.items():
        where = f"stage {config.name}: " + (f"rewards.{domain}" if domain else "reward")
        refuse_unbound(where, reward, (prompt for prompt in prompts if domain in ("", prompt.domain)), search)


def refuse_domains(stage: str, prompts: Iterable[Prompt], known: Collection[str], what: str) -> None:
    """Raise CascadeError naming a domain of ``prompts`` outside ``known``, those for which the stage has ``what``."""
    for domain in sorted({prompt.domain for prompt in prompts} - set(known)):
        raise CascadeError(f"stage {stage}: {without_domain(domain, known, what)}")


def refuse_unbound(where: str, reward: RewardConfig, prompts: Iterable[Prompt], search: Sequence[Path]) -> None:
    """Raise CascadeError for a parameter of ``reward`` that none of ``prompts`` has a column for; nothing is said where
    there are no prompts."""
    if problems := unbound(load_reward(reward, search), (prompt.columns for prompt in prompts)):
        raise CascadeError(f"{where}: " + "; ".join(problems))

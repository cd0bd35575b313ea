"""What the rollouts of a step looked like, over all ranks: together, and for each domain, mode and part of the reward.

``reward/mean`` is over all rollouts that came back, those of groups that ``dynamic_sampling`` replaced too: it says how
good the policy is, and ``tokens/rollout`` what the step has cost; ``groups/zero_variance`` is the share of flat groups
among all. ``domain/math/reward/mean`` is over those of a domain, ``thinking/reward/mean`` and ``instruct/reward/mean``
over those of a mode (where a step has several); ``reward/parts/NAME`` is the mean of a number that a reward put into
its details under ``parts``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cascade_rl.types import Group, Stop


@dataclass(frozen=True)
class _Seen:
    """One rollout, small enough to be sent between ranks."""

    value: float
    error: bool
    timeout: bool
    length: int
    truncated: bool
    domain: str
    thinking: bool
    parts: dict[str, float]


def completion_metrics(gather: Callable[[Any], list[Any]], groups: Sequence[Group]) -> dict[str, float]:
    """Metrics of rollouts that no reward has scored. A collective call, as ``rollout_metrics``."""
    rollouts = [seen for share in gather([seen for group in groups for seen in _seen(group)]) for seen in share]
    metrics = {**_completions(rollouts), "tokens/rollout": sum(seen.length for seen in rollouts)}
    for label, part in _kinds(rollouts):
        metrics |= {f"{label}/{key}": value for key, value in _completions(part).items()}
    return metrics


def rollout_metrics(
    gather: Callable[[Any], list[Any]], groups: Sequence[Group], drops_truncated: bool
) -> dict[str, float]:
    """Metrics of the step's rollouts by name. A collective call: ``gather`` returns what every rank hands to it.

    ``drops_truncated``: truncated rollouts do not count in whether a group is flat.
    """
    flat = [group.is_flat(drops_truncated) for group in groups]
    shares = gather(([seen for group in groups for seen in _seen(group)], flat))
    rollouts = [seen for share, _ in shares for seen in share]
    groups_flat = [is_flat for _, share in shares for is_flat in share]
    metrics = {
        **_rewards(rollouts),
        **_completions(rollouts),
        "groups/zero_variance": sum(groups_flat) / max(1, len(groups_flat)),
        "tokens/rollout": sum(seen.length for seen in rollouts),
    }
    for name in sorted({name for seen in rollouts for name in seen.parts}):
        metrics[f"reward/parts/{name}"] = _mean(seen.parts[name] for seen in rollouts if name in seen.parts)
    for label, part in _kinds(rollouts):
        metrics |= {f"{label}/{key}": value for key, value in {**_rewards(part), **_completions(part)}.items()}
    return metrics


def _seen(group: Group) -> Iterable[_Seen]:
    for rollout, score in zip(group.rollouts, group.scores, strict=True):
        if rollout.stop is Stop.ABORT:
            continue
        parts = score.details.get("parts")
        yield _Seen(
            value=score.value,
            error=score.error is not None,
            timeout=bool(score.details.get("timeout") or score.details.get("crashed")),
            length=len(rollout.token_ids),
            truncated=rollout.truncated,
            domain=group.prompt.domain,
            thinking=bool(group.prompt.thinking),
            parts={k: float(v) for k, v in parts.items() if v is not None} if isinstance(parts, dict) else {},
        )


def _kinds(rollouts: Sequence[_Seen]) -> Iterable[tuple[str, list[_Seen]]]:
    """Rollouts told apart by domain and by mode, where there is more than one of these."""
    domains = sorted({seen.domain for seen in rollouts})
    if len(domains) > 1:
        for domain in domains:
            yield f"domain/{domain or 'none'}", [seen for seen in rollouts if seen.domain == domain]
    if len({seen.thinking for seen in rollouts}) > 1:
        for thinking, label in ((True, "thinking"), (False, "instruct")):
            yield label, [seen for seen in rollouts if seen.thinking == thinking]


def _rewards(rollouts: Sequence[_Seen]) -> dict[str, float]:
    values = [seen.value for seen in rollouts if not seen.error]
    mean = _mean(values)
    return {
        "reward/mean": mean,
        "reward/std": math.sqrt(_mean((value - mean) ** 2 for value in values)) if values else math.nan,
        "reward/error_rate": _mean(seen.error for seen in rollouts),
        "reward/timeouts": sum(seen.timeout for seen in rollouts),
    }


def _completions(rollouts: Sequence[_Seen]) -> dict[str, float]:
    return {
        "completions/mean_length": _mean(seen.length for seen in rollouts),
        "completions/max_length": max((seen.length for seen in rollouts), default=0),
        "completions/truncated": _mean(seen.truncated for seen in rollouts),
    }


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found) if found else math.nan

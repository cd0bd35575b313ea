"""Updates that would teach nonsense: what is refused, what is tried once more, what is skipped and counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from cascade_rl.recipe import RewardConfig
from cascade_rl.stages.onpolicy.collect import Collected
from cascade_rl.stages.onpolicy.method import Method, Sequences
from cascade_rl.stages.onpolicy.records import archive
from cascade_rl.stages.onpolicy.run import RolloutRun
from cascade_rl.stages.onpolicy.states import save
from cascade_rl.stages.skipping import step_or_skip
from cascade_rl.training.packing import TrainingSequence
from cascade_rl.training.update import UpdateStats
from cascade_rl.types import CascadeError, Group, Rollout


def abandon_if_stopped(run: RolloutRun, collected: Collected, step: int) -> None:
    """Give up, on all ranks, a step whose rollouts were cut short on any; its prompts are drawn again later."""
    if run.context.ranks.any(collected.aborted):
        run.context.saver.leave(partial(save, run, step, run.position))


def refuse_errors(
    groups: Sequence[Group], gather: Callable[[Any], list[Any]], rewards: Mapping[str, RewardConfig]
) -> None:
    """Stop the stage when a grader fails too often: a broken grader must not train the model. A collective call.

    ``rewards``: by domain. Raises CascadeError on every rank, with the first error in full, whichever rank met it.
    """
    local = Counter[str]()
    first: dict[str, str] = {}  # an error of each domain
    for group in groups:
        domain = group.prompt.domain
        errors = [score.error for score in group.scores if score.error is not None]
        local[f"{domain} rollouts"] += len(group.scores)
        local[f"{domain} errors"] += len(errors)
        if errors:
            first.setdefault(domain, errors[0])
    counts, firsts = zip(*gather((local, first)), strict=True)
    totals: Counter[str] = sum(counts, Counter())
    for domain, reward in rewards.items():
        names = [domain] if domain else sorted({key.rpartition(" ")[0] for key in totals})
        failed, count = (sum(totals[f"{name} {what}"] for name in names) for what in ("errors", "rollouts"))
        if count and failed / count > reward.max_error_rate:
            raise CascadeError(
                f"the reward {reward.use} failed on {failed} of {count} rollouts, above max_error_rate "
                f"{reward.max_error_rate:g}. These are faults of the grader, not of the answers. The first one:\n"
                + next(found[name] for found in firsts for name in names if name in found)
            )


def stop_with_rollouts(run: RolloutRun, groups: Sequence[Group], step: int, trouble: str) -> CascadeError:
    """The error that ends the stage at ``step``, once its rollouts and the state before it are on disk. A collective
    call."""
    archive(run.context, groups, step)
    save(run, step, run.position)
    run.context.saver.settle()
    return CascadeError(f"step {step + 1}: {trouble}\nIts rollouts are in {run.context.job.stage_folder.rollouts}")


def check_rewards(run: RolloutRun, method: Method, groups: Sequence[Group], step: int) -> None:
    """Raise CascadeError, this step's rollouts and state on disk, where the method must not learn from ``groups``."""
    try:
        method.check(groups, run.context.ranks.gather)
    except CascadeError as error:
        raise stop_with_rollouts(run, groups, step, str(error)) from None


def agrees(stats: UpdateStats, max_gap: float) -> bool:
    """Whether trainer and engine give the tokens of a step the same log-probs, within ``max_gap`` on average. A loss
    that is not finite says nothing about that: ``apply`` deals with it."""
    return stats.logprob_gap_mean <= max_gap or not math.isfinite(stats.loss)


def drop_gradient(
    run: RolloutRun, stats: UpdateStats, groups: Sequence[Group], sequences: Sequences, step: int
) -> None:
    """Drop the gradient of a step in which trainer and engine disagree, and say what was found. The step is then done
    again, once, after a fresh sync.

    Raises CascadeError, both sides shown, when it has been done again already. A collective call.
    """
    scored = [sequence for own in sequences.values() for sequence in own]
    findings = [
        f"trainer and engine disagree about the same tokens: mean |log-prob difference| {stats.logprob_gap_mean:.3g} "
        f"(largest {stats.logprob_gap_max:.3g}), bound {run.max_gap:g}",
        f"furthest apart: {stats.worst}",
        _tokens_found(groups, scored, run.context.ranks.gather),
        f"the engine serves version {run.engine.version}, the trainer is at {step}, the rollouts are of "
        f"{_versions(groups)}",
    ]
    run.policy.discard()
    if run.resyncs == 0:
        run.resyncs += 1
        run.context.say(f"WARNING: step {step + 1}: {'; '.join(findings)}. It is done again after a fresh sync.")
        return
    findings.append(
        "a fresh sync did not help: either the weights do not arrive, or the two compute in different precision; "
        "the bound is `max_logprob_gap`"
    )
    raise stop_with_rollouts(run, groups, step, ".\n".join(findings))


def _tokens_found(
    groups: Sequence[Group], sequences: Sequence[TrainingSequence], gather: Callable[[Any], list[Any]]
) -> str:
    """Whether the tokens that were scored are the ones that were generated. A collective call."""
    generated = Counter(tuple(rollout.token_ids) for group in groups for rollout in group.rollouts)
    known = sum(generated[tuple(s.completion_ids.tolist())] > 0 for s in sequences)
    scored, known = map(sum, zip(*gather((len(sequences), known)), strict=True))
    if known < scored:
        return f"{scored - known} of {scored} scored sequences are NOT what the engine generated"
    return f"all {scored} scored sequences are what the engine generated, token for token"


def _versions(groups: Sequence[Group]) -> str:
    rollouts: list[Rollout] = [rollout for group in groups for rollout in group.rollouts]
    versions = sorted({rollout.version for rollout in rollouts})
    return f"version {', '.join(map(str, versions))}" if versions else "no version, since there are none"


def apply(run: RolloutRun, stats: UpdateStats, groups: Sequence[Group], step: int) -> dict[str, float]:
    """Make the optimizer step; returns its metrics. One whose loss or gradient is not finite is skipped and counted.

    Raises CascadeError, state and rollouts on disk, once more than ``max_skipped_steps`` in a row were. A collective
    call.
    """

    def failure(what: str) -> CascadeError:
        advice = "Lower `learning_rate`, add `warmup_steps`, or look at the rollouts (`max_skipped_steps` bounds it)."
        return stop_with_rollouts(run, groups, step, f"{what} The weights are as after the last good one. {advice}")

    return step_or_skip(run, stats, step, failure)

"""The RL stage: strictly on-policy GRPO. ``train`` is the algorithm; what it calls is one idea each."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path

from cascade_rl.algorithms.advantages import advantages_of_groups
from cascade_rl.algorithms.losses import policy_gradient
from cascade_rl.data.template import Template
from cascade_rl.recipe import RlStage
from cascade_rl.rewarding import DomainScorer, Scorer
from cascade_rl.stages.collect import members
from cascade_rl.stages.context import Context
from cascade_rl.stages.guards import abandon_if_stopped, agree, apply, check_rewards
from cascade_rl.stages.rollout_run import RolloutRun, carry_out, opened, record, save, save_if_due, sync
from cascade_rl.stages.step_metrics import rollout_metrics
from cascade_rl.tracking.trace import Trace
from cascade_rl.training.packing import TrainingSequence, pack, training_sequence
from cascade_rl.training.update import Update
from cascade_rl.types import Group


def train(run: RolloutRun, first_step: int) -> None:
    """Sync weights, roll out, score, compare within groups, update; ``config.steps`` times, or until it may stop."""
    step = first_step
    while step < run.config.steps and not run.switch.reason:
        run.trace = Trace()
        sync(run, version=step)

        run.position = run.sampler.state()
        collected = run.collector.collect(step, version=step, trace=run.trace)
        abandon_if_stopped(run, collected, step)
        check_rewards(run, collected.everything, step)
        run.engine.sleep()
        sequences = training_sequences(collected.groups, run.config)

        with run.trace.span("train"):
            update = new_update(run)
            update.add(pack(sequences, run.config.tokens_per_micro_batch))
            stats = update.stats()
            if not agree(run, stats, collected, sequences, step):
                run.sampler.restore(run.position)
                continue
            applied = apply(run, stats, collected, step)

        metrics = rollout_metrics(run.context.ranks.gather, collected.everything, run.config) | collected.metrics
        record(run, step, collected.everything, stats.metrics() | applied | metrics)
        step += 1
        save_if_due(run, step)
        run.context.stop_if_asked(functools.partial(save, run, step))
    if run.switch.reason and step < run.config.steps:
        run.context.say(f"stopping after step {step} of {run.config.steps}: {run.switch.reason}")


def new_update(run: RolloutRun) -> Update:
    """An empty update by the stage's loss."""
    return Update(
        run.policy,
        lambda row, part, logprobs, _: policy_gradient(logprobs, row.advantages[part]),
        temperature=run.config.rollout.temperature,
        engine_temperature=run.engine.logprob_temperature,
        on_row=lambda: run.phase("training"),
    )


def training_sequences(groups: Sequence[Group], config: RlStage) -> list[TrainingSequence]:
    """Rollouts that count, each with its advantage over its siblings, in prompt and rollout order."""
    kept = [(group, members(group, config)) for group in groups]
    kept = [(group, indices) for group, indices in kept if len(indices) > 1]  # alone there is no baseline
    advantages = advantages_of_groups(
        [[group.scores[i].value for i in indices] for group, indices in kept], config.advantage
    )
    return [
        training_sequence(group.prompt_token_ids, group.rollouts[i].token_ids, group.rollouts[i].logprobs, advantage)
        for (group, indices), row in zip(kept, advantages, strict=True)
        for i, advantage in zip(indices, row, strict=True)
    ]


def open_scorers(context: Context, config: RlStage, template: Template, search: list[Path]) -> DomainScorer:
    """The scorer of each domain's reward, all started. Raises RewardError when one cannot be."""
    with contextlib.ExitStack() as opened_scorers:
        scorers = {
            domain: opened_scorers.enter_context(
                Scorer(reward, search, context.reward_workers(reward), template.thinks_by_default)
            )
            for domain, reward in config.rewards_by_domain.items()
        }
        opened_scorers.pop_all()  # the DomainScorer closes them from here on
    return DomainScorer(scorers)


def run(context: Context) -> None:
    """Train the stage of ``context.job`` and publish its checkpoint."""
    config = context.job.stage_config()
    assert isinstance(config, RlStage)
    with opened(context, lambda template, search: open_scorers(context, config, template, search)) as rl:
        carry_out(rl, train)

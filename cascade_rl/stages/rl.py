"""The RL stage: strictly on-policy GRPO. ``train`` is the algorithm; what it calls is one idea each."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

from cascade_rl.data.template import Template
from cascade_rl.recipe import RlStage
from cascade_rl.rewarding import DomainScorer, Scorer
from cascade_rl.stages.context import Context
from cascade_rl.stages.fitting import refuse_unfit
from cascade_rl.stages.guards import abandon_if_stopped, check_rewards, warn_if_flat
from cascade_rl.stages.learning import Learner, shaped
from cascade_rl.stages.references import kl_reference
from cascade_rl.stages.rollout_run import (
    RolloutRun,
    begin_again,
    begin_step,
    carry_out,
    opened,
    record,
    save,
    save_if_due,
    sync,
    tell_early_end,
)
from cascade_rl.stages.step_metrics import rollout_metrics
from cascade_rl.training.stage_loss import StageLoss


def train(run: RolloutRun, first_step: int) -> None:
    """Sync weights, roll out, score, compare within groups, update; ``config.steps`` times, or until it may stop."""
    step = first_step
    while step < run.config.steps and not run.switch.reason:
        begin_step(run, step)
        sync(run, version=step)

        learner = Learner(run)
        take = learner.take if run.trains_while_generating or run.trains_while_scoring else None
        collected = run.collector.collect(
            step,
            version=step,
            on_group=take,
            after_generation=run.trains_while_scoring,
            meet=learner.meet,
            trace=run.trace,
        )
        abandon_if_stopped(run, collected, step)
        check_rewards(run, collected.everything, step)
        run.engine.sleep()

        learned = learner.learn(collected, step)
        if learned is None:  # trainer and engine disagree: from a fresh sync, once more
            begin_again(run, step)
            continue
        metrics = rollout_metrics(run.context.ranks.gather, collected.everything, run.config)
        warn_if_flat(run, metrics, step)
        record(run, step, collected.everything, learned | metrics | collected.metrics)
        step += 1
        save_if_due(run, step)
        run.context.stop_if_asked(functools.partial(save, run, step))
    tell_early_end(run, step)


def open_scorers(context: Context, config: RlStage, template: Template, search: list[Path]) -> DomainScorer:
    """The scorer of each domain's reward, all started. Raises RewardError when one cannot be."""
    with contextlib.ExitStack() as opened_scorers:
        scorers = {
            domain: opened_scorers.enter_context(
                Scorer(reward, search, context.reward_workers(reward), template.thinks_by_default, watched=True)
            )
            for domain, reward in config.rewards_by_domain.items()
        }
        opened_scorers.pop_all()  # the DomainScorer closes them from here on
    return DomainScorer(scorers)


def run(context: Context) -> None:
    """Train the stage of ``context.job`` and publish its checkpoint."""
    config = context.job.stage_config()
    assert isinstance(config, RlStage)
    with opened(
        context,
        lambda template, search: open_scorers(context, config, template, search),
        functools.partial(refuse_unfit, config),
        shape=functools.partial(shaped, config=config),
    ) as rl:
        if StageLoss.of(config).needs_reference:
            rl.reference = kl_reference(rl)
        carry_out(rl, train)

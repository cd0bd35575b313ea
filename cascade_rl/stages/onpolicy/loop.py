"""The loop of every method that learns from the policy's own rollouts.

::

    weights ──► rollouts ──► groups ──► sequences ──► loss, gradient ──► optimizer step ──► record, save
    to the      scored as    per        with their    packed rows over
    engine      they end     prompt     advantages    all ranks

What the sequences, the loss and the metrics are is the ``Method``'s business: ``stages.rl`` and ``stages.distill``.
"""

from __future__ import annotations

import functools

from cascade_rl.stages.onpolicy.guards import abandon_if_stopped, check_rewards
from cascade_rl.stages.onpolicy.learner import Learner
from cascade_rl.stages.onpolicy.method import Method
from cascade_rl.stages.onpolicy.records import record
from cascade_rl.stages.onpolicy.run import RolloutRun
from cascade_rl.stages.onpolicy.states import begin_again, begin_step, save, save_if_due
from cascade_rl.stages.onpolicy.weights import sync


def train(run: RolloutRun, method: Method, first_step: int) -> None:
    """Sync weights, roll out, learn, write down; ``config.steps`` times, or until ``stop_when`` holds."""
    step, gather = first_step, run.context.ranks.gather
    while step < run.config.steps and not run.switch.reason:
        begin_step(run, step)
        sync(run, version=step)

        learner = Learner(run, method)
        collected = run.collector.collect(step, version=step, listener=learner.listener, trace=run.trace)
        abandon_if_stopped(run, collected, step)
        check_rewards(run, method, collected.everything, step)
        run.engine.sleep()

        learned = learner.learn(collected, step)
        if learned is None:  # trainer and engine disagree: the step is done again after a fresh sync
            begin_again(run, step)
            continue

        metrics = learned.metrics | method.metrics(collected.everything, gather) | collected.metrics
        method.warn(metrics, step, run.context.say)
        record(run, step, method.recorded(collected, learned.sequences), metrics, method.lanes)
        step += 1
        save_if_due(run, step)
        run.context.stop_if_asked(functools.partial(save, run, step))
    if run.switch.reason and step < run.config.steps:
        run.context.say(f"stopping after step {step} of {run.config.steps}: {run.switch.reason}")

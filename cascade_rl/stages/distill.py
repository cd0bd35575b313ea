"""The distillation stage: a student samples, teachers say how likely they find its tokens (MOPD; P2 section 4).

``train`` is the algorithm. It differs from RL in where a token's advantage comes from: a teacher's log-prob instead of
a reward compared within a group. So there is one per token, and no rollout needs siblings.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cascade_rl.algorithms.distillation import mopd_loss, mopd_measures
from cascade_rl.recipe import DistillStage
from cascade_rl.stages.context import Context
from cascade_rl.stages.fitting import refuse_domains
from cascade_rl.stages.guards import abandon_if_stopped, agree, apply, stop_with_rollouts
from cascade_rl.stages.learning import training_rows
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
from cascade_rl.stages.step_metrics import completion_metrics
from cascade_rl.stages.teachers import AskAhead, Teachers, open_teachers
from cascade_rl.training.packing import MicroBatch, TrainingSequence, training_sequence
from cascade_rl.training.update import Update
from cascade_rl.types import CascadeError, Group, Prompt, Rollout, Score, Stop


def train(run: RolloutRun, first_step: int, teachers: Teachers) -> None:
    """Sync weights, roll out, ask the teachers, update; ``config.steps`` times, or until it may stop."""
    step = first_step
    while step < run.config.steps and not run.switch.reason:
        begin_step(run, step)
        sync(run, version=step)

        collected = run.collector.collect(step, version=step, trace=run.trace)
        abandon_if_stopped(run, collected, step)
        run.engine.sleep()
        sequences = ask(run, teachers, collected.groups, step)
        rollouts = sum(run.context.ranks.gather(len(sequences)))

        with run.trace.span("train"):
            update = new_update(run)
            update.add(training_rows(run, sequences))
            stats = update.stats(denominator=max(1, rollouts))
            if not agree(run, stats, collected, sequences, step):  # from a fresh sync, once more
                begin_again(run, step)
                continue
            applied = apply(run, stats, collected, step)

        metrics = completion_metrics(run.context.ranks.gather, collected.groups) | collected.metrics
        metrics["time/teacher_s"] = run.trace.seconds("ask teachers")
        stats = dataclasses.replace(stats, measures=by_domain(stats.measures))
        record(run, step, valued(collected.groups, sequences), stats.metrics() | applied | metrics)
        step += 1
        save_if_due(run, step)
        run.context.stop_if_asked(functools.partial(save, run, step))
    tell_early_end(run, step)


@dataclass(frozen=True)
class Lesson:
    """The loss of tokens that teachers have looked at (``training.update.TokenLoss``), and what to measure of them."""

    low: float
    high: float

    def __call__(self, row: MicroBatch, part: slice, logprobs: Tensor, entropy: Tensor) -> Tensor:
        """Loss terms of the tokens ``part`` of ``row``."""
        assert row.reference_logprobs is not None
        given = row.reference_logprobs[part], row.engine_logprobs[part]
        return mopd_loss(logprobs, *given, low=self.low, high=self.high)

    def measures(self, row: MicroBatch, logprobs: Tensor) -> dict[str, Tensor]:
        """For ``Update``: [N] each; of each domain too, where ``by_domain`` makes means of them."""
        assert row.reference_logprobs is not None
        found = mopd_measures(logprobs, row.reference_logprobs, row.engine_logprobs, low=self.low, high=self.high)
        # What fills up a row that several ranks share has no label, and no tokens.
        labels = [label for label, n in zip(row.labels, row.lengths.tolist(), strict=False) for _ in range(n)]
        for label in dict.fromkeys(labels):
            its = torch.tensor([other == label for other in labels], device=logprobs.device).to(logprobs)  # [N]
            prefix = f"domain/{label or 'none'}/"
            found |= {f"{prefix}{SHARE}": its} | {prefix + name: its * found[name] for name in MEASURES}
        return found


SHARE = "share of tokens"
MEASURES = ("distill/advantage_mean", "distill/masked")


def by_domain(measures: Mapping[str, float]) -> dict[str, float]:
    """What ``Lesson`` measured, as means: sums over a domain's tokens came divided by the number of all tokens. A step
    of one domain has no metrics of its own."""
    shares = {name.removesuffix(SHARE): value for name, value in measures.items() if name.endswith(SHARE)}
    metrics = {name: measures.get(name, math.nan) for name in MEASURES}
    for prefix, share in sorted(shares.items()) if len(shares) > 1 else ():
        metrics |= {prefix + name: measures[prefix + name] / share for name in MEASURES}
    return metrics


def new_update(run: RolloutRun) -> Update:
    """An empty update by the stage's loss."""
    lesson = Lesson(run.config.ratio_low, run.config.ratio_high)
    return Update(
        run.policy,
        lesson,
        engine_temperature=run.engine.logprob_temperature,
        on_row=lambda: run.phase("training"),
        measures=lesson.measures,
    )


def ask(run: RolloutRun, teachers: Teachers, groups: Sequence[Group], step: int) -> list[TrainingSequence]:
    """The step's rollouts with their teachers' log-probs. Raises CascadeError on every rank when one rank cannot have
    them, with state and rollouts on disk."""
    sequences, trouble = training_sequences(groups, run.config.rollout.temperature), ""
    with run.trace.span("ask teachers"):
        run.phase("asking teachers")
        try:
            sequences = teachers.fill(sequences)
        except CascadeError as error:
            trouble = str(error)
    troubles = [trouble for trouble in run.context.ranks.gather(trouble) if trouble]
    if troubles:
        raise stop_with_rollouts(run, groups, step, troubles[0])
    return sequences


def training_sequences(groups: Sequence[Group], temperature: float = 1.0) -> list[TrainingSequence]:
    """Every rollout that came back, sampled at ``temperature``, each of its n tokens weighing 1 / n; in prompt and
    rollout order."""
    return [
        training_sequence(
            group.prompt_token_ids,
            rollout.token_ids,
            rollout.logprobs,
            0.0,  # known once the trainer has scored them
            1.0 / len(rollout.token_ids),
            group.prompt.domain,
            rollout.kept,
            temperature,
        )
        for group in groups
        for rollout in group.rollouts
        if counts(rollout)
    ]


def counts(rollout: Rollout) -> bool:
    """Whether there is something to learn from it."""
    return rollout.stop is not Stop.ABORT and len(rollout.token_ids) > 0


def valued(groups: Sequence[Group], sequences: Sequence[TrainingSequence]) -> list[Group]:
    """``groups`` with a value for people who read rollouts: how much likelier a token is to the teacher, on average
    over the rollout, than it was to the engine that drew it. ``sequences``: ``training_sequences`` of the groups."""
    left = iter(sequences)

    def score(rollout: Rollout) -> Score:
        if not counts(rollout):
            return Score(0.0)
        sequence = next(left)
        assert sequence.reference_logprobs is not None
        return Score(float((sequence.reference_logprobs - sequence.engine_logprobs).mean(dtype=float)))

    return [dataclasses.replace(group, scores=[score(rollout) for rollout in group.rollouts]) for group in groups]


def refuse_untaught(config: DistillStage, prompts: Sequence[Prompt]) -> None:
    """Raise CascadeError for prompts of a domain without a teacher."""
    if config.teachers:
        refuse_domains(config.name, prompts, config.teachers, "teachers")


def run(context: Context) -> None:
    """Train the stage of ``context.job`` and publish its checkpoint."""
    config = context.job.stage_config()
    assert isinstance(config, DistillStage)
    with (
        open_teachers(context, config) as teachers,
        opened(
            context,
            lambda template, search: AskAhead(teachers, template),
            lambda prompts, search: refuse_untaught(config, prompts),
        ) as student,
    ):
        teachers.check(student)
        carry_out(student, functools.partial(train, teachers=teachers))

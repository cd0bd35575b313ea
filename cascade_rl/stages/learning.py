"""From scored groups to an optimizer step: what a step learns from, and by which of the recipe's methods.

The pure parts say what counts and how much; ``Learner`` feeds it to the policy, row by row: after all groups are there,
or, where engines have devices of their own, while others still generate.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from cascade_rl.algorithms.advantages import advantages_of_groups
from cascade_rl.algorithms.overlong import soft_overlong_penalty
from cascade_rl.recipe import RlStage
from cascade_rl.stages.collect import Collected, members, sampling_of
from cascade_rl.stages.guards import agree, apply
from cascade_rl.stages.open_step import Meet
from cascade_rl.stages.rollout_run import RolloutRun
from cascade_rl.training.balance import NOTHING
from cascade_rl.training.packing import MicroBatch, TrainingSequence, training_sequence
from cascade_rl.training.stage_loss import StageLoss
from cascade_rl.training.update import Update, UpdateStats
from cascade_rl.types import Group


def shaped(group: Group, config: RlStage) -> Group:
    """``group`` with what ``overlong: soft`` takes off its values; the scores' details keep the penalty."""
    if config.overlong_buffer is None:
        return group
    longest = sampling_of(config, group.prompt).max_new_tokens
    buffer = min(config.overlong_buffer, longest)
    penalties = [soft_overlong_penalty(len(rollout.token_ids), longest, buffer) for rollout in group.rollouts]
    scores = [
        dataclasses.replace(score, value=score.value + penalty, details={**score.details, "overlong_penalty": penalty})
        for score, penalty in zip(group.scores, penalties, strict=True)
    ]
    return dataclasses.replace(group, scores=scores)


def training_sequences(groups: Sequence[Group], config: RlStage, loss: StageLoss) -> list[TrainingSequence]:
    """Rollouts that count, each with its advantage over its siblings, in prompt and rollout order."""
    kept = [(group, members(group, config)) for group in groups]
    kept = [(group, indices) for group, indices in kept if len(indices) > 1]  # alone there is no baseline
    advantages = advantages_of_groups(
        [[group.scores[i].value for i in indices] for group, indices in kept], config.advantage
    )
    return [
        training_sequence(
            group.prompt_token_ids,
            group.rollouts[i].token_ids,
            group.rollouts[i].logprobs,
            advantage,
            loss.weight(len(group.rollouts[i].token_ids)),
            kept=group.rollouts[i].kept,
            temperature=config.rollout.temperature,
        )
        for (group, indices), row in zip(kept, advantages, strict=True)
        for i, advantage in zip(indices, row, strict=True)
    ]


def informative(sequences: Sequence[TrainingSequence], loss: StageLoss) -> list[TrainingSequence]:
    """Those that can have a gradient: without KL penalty and entropy bonus, an advantage of zero has none.

    The others are left out of forward and backward passes, but not of the denominator: the update is the same.
    """
    if loss.objective.kl or loss.objective.entropy:
        return list(sequences)
    return [sequence for sequence in sequences if sequence.advantages.any()]


def updates_of(positions: Sequence[Sequence[int]], teaches: Sequence[Sequence[bool]], count: int) -> dict[int, int]:
    """Position of a prompt in its step -> which of the batch's updates its group belongs to.

    ``positions``, ``teaches``: by rank, of each group; ``count``: updates asked for. The cut is made over the groups of
    all ranks, so it is the same for any number of ranks. Groups that have a gradient are cut, in the order of their
    positions, into runs whose sizes differ by one at most, so no update is empty; where there are fewer of them than
    ``count``, there are as many updates as such groups, and at least one. Groups without a gradient, which count in
    the denominators alone, are dealt out in the same way.
    """
    step = sorted(
        (position, taught)
        for own, which in zip(positions, teaches, strict=True)
        for position, taught in zip(own, which, strict=True)
    )
    count = max(1, min(count, sum(taught for _, taught in step)))
    found: dict[int, int] = {}
    for kind in (True, False):
        those = [position for position, taught in step if taught is kind]
        found |= {position: number * count // len(those) for number, position in enumerate(those)}
    return found


def filled(sequences: Sequence[TrainingSequence], budget: int) -> int:
    """How many of the first ``sequences`` make a full row: the next one would not fit; 0 where all still do."""
    tokens = 0
    for count, sequence in enumerate(sequences):
        tokens += len(sequence)
        if tokens > budget:
            return max(1, count)
    return 0


class Learner:
    """The learning of one step: ``take`` groups while others generate, if that may be; then ``learn`` from all."""

    def __init__(self, run: RolloutRun) -> None:
        self._run, self._config = run, run.config
        self._loss = StageLoss.of(run.config)
        self._together = run.policy.needs_lockstep and run.context.ranks.world_size > 1
        self._taken: set[int] = set()
        self._waiting: list[TrainingSequence] = []
        self._update = self._new_update()

    def take(self, group: Group) -> None:
        """A group that is final: rows that are full with it are trained on at once, or by the ranks' next ``meet``."""
        self._taken.add(id(group))
        self._waiting += self._prepared([group])
        while not self._together and (row := self._full_row()):
            self._train([row])

    @property
    def meet(self) -> Meet | None:
        """What lets ranks learn together while others generate; None where each may do so alone."""
        return self._meet if self._together and self._run.trains_while_generating else None

    def _meet(self, done: bool, stopped: bool) -> tuple[bool, bool]:
        """A collective call: one row on every rank, once all have one that is full."""
        ready = filled(self._waiting, self._config.tokens_per_micro_batch) > 0
        everyone = self._run.context.ranks.gather((ready, done, stopped))
        if any(stopped for _, _, stopped in everyone):
            return False, True
        if all(ready for ready, _, _ in everyone) and (row := self._full_row()):
            self._train([row])
        return all(done for _, done, _ in everyone), False

    def _full_row(self) -> MicroBatch | None:
        count = filled(self._waiting, self._config.tokens_per_micro_batch)
        if not count:
            return None
        sequences, self._waiting = self._waiting[:count], self._waiting[count:]
        return self._run.policy.row(sequences)

    def learn(self, collected: Collected, step: int) -> dict[str, float] | None:
        """The optimizer step, or the steps, of the batch. Returns their metrics; None for a step to be done again,
        because trainer and engine disagree. A collective call."""
        found: list[dict[str, float]] = []
        for number, groups in enumerate(self._parts(collected)):
            sequences = training_sequences(groups, self._config, self._loss)
            self._train(self._rows(groups))
            stats = self._update.stats(self._denominator(sequences))
            # Once the weights have moved, the engine's log-probs are another policy's, and mean to be.
            if number == 0 and not agree(self._run, stats, collected, sequences, step):
                return None
            found.append(self._applied(stats, collected, step))
            self._update = self._new_update()
        return _means(found)

    def _parts(self, collected: Collected) -> list[list[Group]]:
        """This rank's groups of each update; a rank may have none where others have some. A collective call where
        there are to be several updates."""
        wanted, groups = self._config.updates_per_batch or 1, collected.groups
        if wanted == 1:
            return [groups]
        teaches = [
            bool(informative(training_sequences([group], self._config, self._loss), self._loss)) for group in groups
        ]
        everyone = self._run.context.ranks.gather((collected.positions, teaches))
        numbers = updates_of([positions for positions, _ in everyone], [taught for _, taught in everyone], wanted)
        return [
            [group for group, position in zip(groups, collected.positions, strict=True) if numbers[position] == number]
            for number in range(max(numbers.values(), default=0) + 1)
        ]

    def _train(self, rows: Sequence[MicroBatch]) -> None:
        reference = self._run.reference
        with self._run.trace.span("train"):
            self._update.add(row if reference is None else reference.fill_row(row) for row in rows)

    def _applied(self, stats: UpdateStats, collected: Collected, step: int) -> dict[str, float]:
        with self._run.trace.span("train"):
            return stats.metrics() | apply(self._run, stats, collected, step)

    def _prepared(self, groups: Sequence[Group]) -> list[TrainingSequence]:
        """What of ``groups`` goes through the policy, with all that its loss needs."""
        sequences = informative(training_sequences(groups, self._config, self._loss), self._loss)
        if self._run.reference is None:
            return sequences
        with self._run.trace.span("reference"):
            return self._run.reference.fill(sequences)

    def _rows(self, groups: Sequence[Group]) -> list[MicroBatch]:
        """Rows of what was not trained on yet."""
        self._waiting += self._prepared([g for g in groups if id(g) not in self._taken])
        # Ranks that meet cut as before, whatever was trained on early: the same rows in the same order, the same bits.
        rows = [] if self.meet is None else list(iter(self._full_row, None))
        left, self._waiting = self._waiting, []
        if self.meet is None:
            return training_rows(self._run, left)
        rows += [self._run.policy.row(left)] if left else []
        missing = max(self._run.context.ranks.gather(len(rows))) - len(rows)
        return rows + [self._run.policy.row([NOTHING])] * missing

    def _denominator(self, sequences: Sequence[TrainingSequence]) -> float:
        """Over all ranks, of sequences without a gradient too."""
        ranks = self._run.context.ranks
        tokens = sum(len(sequence.completion_ids) for sequence in sequences)
        counts = ranks.sum(torch.tensor([tokens, len(sequences)], dtype=torch.float64, device=ranks.device))
        return self._loss.denominator(*(int(count) for count in counts.tolist()))

    def _new_update(self) -> Update:
        run = self._run
        return Update(
            run.policy,
            self._loss,
            engine_temperature=run.engine.logprob_temperature,
            on_row=lambda: run.phase("training"),
            screen=self._loss.screen,
            measures=self._loss.measures,
            taught=self._loss.taught,
        )


def training_rows(run: RolloutRun, sequences: Sequence[TrainingSequence]) -> list[MicroBatch]:
    """This rank's rows of the step."""
    return run.policy.rows(sequences, run.config.tokens_per_micro_batch)


def _means(updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of several updates of a batch; of one, its own numbers. An update that measured nothing (see ``Taught``) is left
    out of the means of what it did not measure; a loss that is NaN stays visible."""
    if len(updates) == 1:
        return dict(updates[0])
    return {name: _together(name, [update[name] for update in updates if name in update]) for name in updates[0]}


def _together(name: str, values: Sequence[float]) -> float:
    if name in ("tokens/trained", "update/skipped"):
        return sum(values)
    if name not in ("loss", "grad_norm"):
        values = [value for value in values if not math.isnan(value)] or [math.nan]
    return sum(values) / len(values)

"""One step's learning: packed rows of what groups teach, their gradient, one optimizer step or several.

::

    groups ──sequences──► [reference] ──► rows of all ranks ──► Update ──► guards ──► optimizer step
       │                                     ▲
       └─ early: full rows are trained on ───┘   (while others of the step still generate or are scored)

What a group teaches, and by which loss, the ``Method`` says. ``Learner`` decides when: it cuts a batch into updates and
trains early on groups that are complete, where engines have devices of their own or scores are slow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cascade_rl.stages.onpolicy.collect import Collected
from cascade_rl.stages.onpolicy.guards import agrees, apply, drop_gradient, stop_with_rollouts
from cascade_rl.stages.onpolicy.method import Method, Sequences
from cascade_rl.stages.onpolicy.run import RolloutRun
from cascade_rl.training.balance import NOTHING
from cascade_rl.training.packing import MicroBatch, TrainingSequence
from cascade_rl.training.update import Update
from cascade_rl.types import CascadeError, Group


@dataclass(frozen=True)
class Learned:
    """What a step has learned."""

    metrics: dict[str, float]
    sequences: Sequences
    """As they were trained on, with reference log-probs; without groups that were trained on early."""


class Learner:
    """Learns from the groups of one step: from some of them early, if possible; then ``learn`` from all the others."""

    def __init__(self, run: RolloutRun, method: Method) -> None:
        self._run, self._method, self._ranks = run, method, run.context.ranks
        self._budget = run.config.tokens_per_micro_batch
        self._lockstep = run.policy.needs_lockstep and self._ranks.world_size > 1
        overlap = overlapped(run, method)
        self.after_generation = overlap == "scoring"
        self._meets = overlap == "generation" and self._lockstep
        self.listener: Learner | None = self if overlap else None
        """What the collector hands groups to while others are in progress; None: it waits for all."""
        self._taken: set[int] = set()  # positions of the groups that were trained on early
        self._waiting: list[TrainingSequence] = []  # of those groups, what does not fill a row yet
        self._update = self._new_update()

    # Early: a GroupListener (open_step) ------------------------------------------------------------------------------

    def take(self, position: int, group: Group) -> None:
        """Train on the rows that are full with this group; where passes are collective, ``meet`` does it."""
        self._taken.add(position)
        sequences = self._with_gradient(self._method.sequences({position: group}, _no_other_rank))
        if self._method.reference is not None and sequences:
            with self._run.trace.span(self._method.reference_lane):
                sequences = self._method.reference.fill(sequences)
        self._waiting += sequences
        while not self._lockstep and (row := self._full_row()):
            self._train([row])

    def meet(self, done: bool, stopped: bool) -> tuple[bool, bool]:
        """Let ranks whose passes are collective train together: one row each, once every rank has one that is full.

        A collective call in that case (see ``GroupListener``).
        """
        if not self._meets:
            return done, stopped
        ready = full_row(self._waiting, self._budget) > 0
        everyone = self._ranks.gather((ready, done, stopped))
        if any(stopped for _, _, stopped in everyone):
            return False, True
        if all(ready for ready, _, _ in everyone) and (row := self._full_row()):
            self._train([row])
        return all(done for _, done, _ in everyone), False

    def _full_row(self) -> MicroBatch | None:
        count = full_row(self._waiting, self._budget)
        if not count:
            return None
        sequences, self._waiting = self._waiting[:count], self._waiting[count:]
        return self._run.policy.row(sequences)

    # The rest of the step -------------------------------------------------------------------------------------------

    def learn(self, collected: Collected, step: int) -> Learned | None:
        """Make the optimizer step, or the steps, of the batch. A collective call.

        Returns None for a step to be done again, because trainer and engine disagree.
        """
        sequences = self._method.sequences(collected.by_position, self._ranks.gather)
        trained: Sequences = {}
        metrics: list[dict[str, float]] = []
        for number, positions in enumerate(self._updates(sequences)):
            part = {position: sequences[position] for position in positions}
            rest = self._filled({p: own for p, own in part.items() if p not in self._taken}, collected.groups, step)
            trained |= rest
            self._train(self._rows([sequence for own in rest.values() for sequence in own]))
            stats = self._update.stats(self._denominator(part))
            # Once an update has moved the weights, the engine's log-probs are another policy's, and are meant to be.
            if number == 0:
                if not agrees(stats, self._run.max_gap):
                    drop_gradient(self._run, stats, collected.groups, part, step)
                    return None
                self._run.resyncs = 0
            with self._run.trace.span("train"):
                metrics.append(self._method.loss.metrics(stats) | apply(self._run, stats, collected.groups, step))
            self._update = self._new_update()
        return Learned(means(metrics), trained)

    def _updates(self, sequences: Sequences) -> list[list[int]]:
        """The positions of this rank's groups in each update; a rank may have none where others have some.

        A collective call where there are to be several updates.
        """
        wanted = self._method.updates_per_batch
        if wanted == 1:
            return [list(sequences)]
        teaches = {p: any(map(self._method.has_gradient, own)) for p, own in sequences.items()}
        everyone = self._ranks.gather(teaches)
        number_of = updates_of({position: taught for share in everyone for position, taught in share.items()}, wanted)
        count = max(number_of.values(), default=0) + 1
        return [[position for position in sequences if number_of[position] == number] for number in range(count)]

    def _with_gradient(self, sequences: Sequences) -> list[TrainingSequence]:
        return [sequence for own in sequences.values() for sequence in own if self._method.has_gradient(sequence)]

    def _filled(self, sequences: Sequences, groups: Sequence[Group], step: int) -> Sequences:
        """What of ``sequences`` goes through the policy, with the reference log-probs that the loss compares it with.

        A collective call where there is a reference. Raises CascadeError on all ranks when one rank cannot have them,
        state and rollouts on disk.
        """
        going = {p: list(filter(self._method.has_gradient, own)) for p, own in sequences.items()}
        reference, trouble = self._method.reference, ""
        if reference is None:
            return going
        flat = [sequence for own in going.values() for sequence in own]
        with self._run.trace.span(self._method.reference_lane):
            self._run.reporter.finished(self._method.reference_lane)
            try:
                flat = reference.fill(flat)
            except CascadeError as error:
                trouble = str(error)
        troubles = [trouble for trouble in self._ranks.gather(trouble) if trouble]
        if troubles:
            raise stop_with_rollouts(self._run, groups, step, troubles[0])
        left = iter(flat)
        return {position: [next(left) for _ in own] for position, own in going.items()}

    def _rows(self, sequences: list[TrainingSequence]) -> list[MicroBatch]:
        """Rows of ``sequences`` and of what waits since ``take``. A collective call."""
        waiting, self._waiting = [*self._waiting, *sequences], []
        if not self._meets:
            return self._run.policy.rows(waiting, self._budget)
        # Ranks that meet go on cutting rows in the same order, however many of them were trained on early: the same
        # rows give the same bits. A rank with fewer rows trains on empty ones, to keep collective passes in step.
        self._waiting, rows = waiting, list[MicroBatch]()
        while row := self._full_row():
            rows.append(row)
        rest, self._waiting = self._waiting, []
        rows += [self._run.policy.row(rest)] if rest else []
        missing = max(self._ranks.gather(len(rows))) - len(rows)
        return rows + [self._run.policy.row([NOTHING])] * missing

    def _train(self, rows: Sequence[MicroBatch]) -> None:
        """Add the gradient of ``rows``. A collective call where passes are."""
        reference = self._method.reference
        with self._run.trace.span("train"):
            self._update.add(row if reference is None else reference.fill_row(row) for row in rows)

    def _denominator(self, sequences: Sequences) -> float:
        """What the loss is divided by, from all ranks; sequences without a gradient count too. A collective call."""
        lengths = [len(sequence.completion_ids) for own in sequences.values() for sequence in own]
        mine = torch.tensor([sum(lengths), len(lengths)], dtype=torch.float64, device=self._ranks.device)
        tokens, rollouts = (int(count) for count in self._ranks.sum(mine).tolist())
        return self._method.loss.denominator(tokens=tokens, rollouts=rollouts)

    def _new_update(self) -> Update:
        run, loss = self._run, self._method.loss
        return Update(
            run.policy,
            loss,
            engine_temperature=run.engine.logprob_temperature,
            on_row=lambda: run.reporter.finished("training"),
            screen=loss.screen,
            measures=loss.measures,
            taught=loss.measured,
        )


def overlapped(run: RolloutRun, method: Method) -> str | None:
    """What training on the step's first groups overlaps with: ``generation`` or ``scoring`` of the others, or None.

    Engines on devices of their own go on generating meanwhile. Where one rank generates and trains in turns, it trains
    while scores are still missing; several ranks wait for all groups, to share them out evenly, and under
    ``dynamic_sampling`` more rollouts may be called for. Ranks that share each row's tokens wait for all groups too.
    """
    if method.updates_per_batch > 1 or method.needs_whole_batch or not method.learns_early:
        return None
    if run.config.engine.placement == "dedicated":
        return None if run.policy.shares_rows else "generation"
    alone = run.context.ranks.world_size == 1
    return "scoring" if alone and method.options.dynamic_sampling is None else None


def full_row(sequences: Sequence[TrainingSequence], budget: int) -> int:
    """How many of the first ``sequences`` make a full row: the next one would not fit. 0 where all still do."""
    tokens = 0
    for count, sequence in enumerate(sequences):
        tokens += len(sequence)
        if tokens > budget:
            return max(1, count)
    return 0


def updates_of(teaches: dict[int, bool], count: int) -> dict[int, int]:
    """Position of a prompt in its step -> which of the batch's updates its group belongs to.

    ``teaches``: for the groups of all ranks, whether they have a gradient; ``count``: updates asked for. Groups that
    have one are cut, in the order of their positions, into runs whose sizes differ by one at most, so no update is
    empty; where there are fewer of them than ``count``, there are as many updates as such groups, and at least one.
    Groups without a gradient, which count in the denominators alone, are dealt out in the same way.
    """
    count = max(1, min(count, sum(teaches.values())))
    found: dict[int, int] = {}
    for kind in (True, False):
        those = [position for position, taught in sorted(teaches.items()) if taught is kind]
        found |= {position: number * count // len(those) for number, position in enumerate(those)}
    return found


def means(updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """Metrics of a batch from those of its updates; a single update keeps its own numbers.

    An update that measured nothing (NaN) is left out of the mean of what it did not measure; a loss that is NaN stays
    visible.
    """
    if len(updates) == 1:
        return dict(updates[0])
    return {name: _mean(name, [update[name] for update in updates if name in update]) for name in updates[0]}


def _mean(name: str, values: Sequence[float]) -> float:
    if name in ("tokens/trained", "update/skipped"):
        return sum(values)
    if name not in ("loss", "grad_norm"):
        values = [value for value in values if not math.isnan(value)] or [math.nan]
    return sum(values) / len(values)


def _no_other_rank(value: object) -> list[object]:
    raise AssertionError("a group that is trained on early is its rank's own business: no collective call")

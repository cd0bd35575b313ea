"""The distillation stage, with all of its maths: a student samples, teachers say how likely they find its tokens (MOPD,
arXiv 2603.19220, section 4).

It differs from RL in where a token's advantage comes from: a teacher's log-prob instead of a reward compared within a
group. So there is one advantage per token, and no rollout needs siblings. ``onpolicy.loop.train`` is the loop around
it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cascade_rl.algorithms.distillation import mopd_loss, mopd_measures
from cascade_rl.algorithms.logprobs import TokenScores
from cascade_rl.algorithms.losses import rollout_weight, step_denominator
from cascade_rl.data.template import Template
from cascade_rl.recipe import DistillStage
from cascade_rl.stages.context import Context
from cascade_rl.stages.fitting import refuse_domains
from cascade_rl.stages.frozen.teachers import AskAhead, Teachers, open_teachers
from cascade_rl.stages.onpolicy.collect import Collected
from cascade_rl.stages.onpolicy.method import Gather, Groups, Method, Sequences
from cascade_rl.stages.onpolicy.publish import carry_out
from cascade_rl.stages.onpolicy.run import RolloutRun
from cascade_rl.stages.onpolicy.setup import opened
from cascade_rl.stages.onpolicy.step_metrics import completion_metrics
from cascade_rl.training.packing import MicroBatch, TrainingSequence, training_sequence
from cascade_rl.training.update import UpdateStats
from cascade_rl.types import Group, Prompt, Rollout, Score, Stop

SHARE = "share of tokens"
MEASURES = ("distill/advantage_mean", "distill/masked")


@dataclass(frozen=True)
class DistillLoss:
    """The loss terms of tokens whose log-probs by a teacher are known, the mean over the tokens of each rollout, then
    over rollouts."""

    low: float
    high: float
    screen: None = None

    def __call__(self, row: MicroBatch, part: slice, logprobs: Tensor, entropy: Tensor) -> Tensor:
        """-w a log pi of the tokens ``part`` of ``row`` (``mopd_loss``), a = log pi_teacher - log pi. -> [n]"""
        assert row.reference_logprobs is not None
        teacher, engine = row.reference_logprobs[part], row.engine_logprobs[part]
        return mopd_loss(logprobs, teacher, engine, low=self.low, high=self.high)

    def denominator(self, *, tokens: int, rollouts: int) -> float:
        """The number of rollouts."""
        return step_denominator("sequence", tokens=tokens, rollouts=rollouts)

    def measured(self, row: MicroBatch) -> Tensor:
        """[N] bool: all sampled tokens."""
        return torch.ones_like(row.advantages, dtype=torch.bool)

    def measures(self, row: MicroBatch, scores: TokenScores) -> dict[str, Tensor]:
        """Name -> [N] values; also of each domain, where ``metrics`` makes means of them."""
        assert row.reference_logprobs is not None
        logprobs = scores.logprobs
        found = mopd_measures(logprobs, row.reference_logprobs, row.engine_logprobs, low=self.low, high=self.high)
        # What fills up a row that several ranks share has no label, and no tokens.
        labels = [label for label, n in zip(row.labels, row.lengths.tolist(), strict=False) for _ in range(n)]
        for label in dict.fromkeys(labels):
            own = torch.tensor([other == label for other in labels], device=logprobs.device).to(logprobs)  # [N]
            prefix = f"domain/{label or 'none'}/"
            found |= {f"{prefix}{SHARE}": own} | {prefix + name: own * found[name] for name in MEASURES}
        return found

    def metrics(self, stats: UpdateStats) -> dict[str, float]:
        """The metrics of an update; a step of one domain has none by domain."""
        return dataclasses.replace(stats, measures=by_domain(stats.measures)).metrics()


def by_domain(measures: Mapping[str, float]) -> dict[str, float]:
    """What ``DistillLoss`` measured, as means. An update divides by the number of all tokens; dividing by a domain's
    share of them gives the mean over its own."""
    shares = {name.removesuffix(SHARE): value for name, value in measures.items() if name.endswith(SHARE)}
    metrics = {name: measures.get(name, math.nan) for name in MEASURES}
    for prefix, share in sorted(shares.items()) if len(shares) > 1 else ():
        metrics |= {prefix + name: measures[prefix + name] / share for name in MEASURES}
    return metrics


class Distillation(Method[DistillStage]):
    """On-policy distillation from ``teachers``."""

    learns_early = False  # teachers answer for the whole step at once
    reference_lane = "ask teachers"
    lanes = {"ask teachers": "time/teacher_s"}  # noqa: RUF012

    def __init__(self, config: DistillStage, teachers: Teachers) -> None:
        super().__init__(config)
        self._teachers = self.reference = teachers
        self._loss = DistillLoss(config.ratio_low, config.ratio_high)

    @contextlib.contextmanager
    def open_scorer(self, context: Context, template: Template, search: list[Path]) -> Iterator[AskAhead]:
        """No reward: teachers behind a server are asked ahead about each rollout as it ends."""
        yield AskAhead(self._teachers, template)

    def check_prompts(self, prompts: Sequence[Prompt], search: list[Path]) -> None:
        """Refuse domains without a teacher."""
        if self.config.teachers:
            refuse_domains(self.config.name, prompts, self.config.teachers, "teachers")

    def prepare(self, run: RolloutRun) -> None:
        """Check that every teacher reads what the student writes."""
        longest = run.prompts.longest + self.config.longest_completion
        self._teachers.check(run.context, run.tokenizer, run.template, longest)

    def sequences(self, groups: Groups, gather: Gather) -> Sequences:
        """Every rollout that came back, each of its n tokens weighing 1 / n."""
        return {
            position: [self._sequence(group, rollout) for rollout in group.rollouts if counts(rollout)]
            for position, group in groups.items()
        }

    def _sequence(self, group: Group, rollout: Rollout) -> TrainingSequence:
        return training_sequence(
            group.prompt_token_ids,
            rollout.token_ids,
            rollout.logprobs,
            0.0,  # known once the trainer has scored the tokens: the loss takes them from the teacher's log-probs
            rollout_weight(len(rollout.token_ids), "sequence"),
            group.prompt.domain,
            rollout.kept,
            self.config.rollout.temperature,
        )

    @property
    def loss(self) -> DistillLoss:
        """The loss."""
        return self._loss

    def metrics(self, groups: Sequence[Group], gather: Gather) -> dict[str, float]:
        """Lengths. A collective call."""
        return completion_metrics(gather, groups)

    def recorded(self, collected: Collected, sequences: Sequences) -> list[Group]:
        """The groups with a value for people who read rollouts: how much likelier a token is to the teacher than it was
        to the engine that drew it, on average over the rollout."""
        return [valued(group, sequences[position]) for position, group in collected.by_position.items()]


def counts(rollout: Rollout) -> bool:
    """Whether there is something to learn from it."""
    return rollout.stop is not Stop.ABORT and len(rollout.token_ids) > 0


def valued(group: Group, sequences: Sequence[TrainingSequence]) -> Group:
    """``group`` with the mean of log pi_teacher - log pi_engine as values. ``sequences``: of rollouts that count."""
    left = iter(sequences)

    def score(rollout: Rollout) -> Score:
        if not counts(rollout):
            return Score(0.0)
        sequence = next(left)
        assert sequence.reference_logprobs is not None
        return Score(float((sequence.reference_logprobs - sequence.engine_logprobs).mean(dtype=float)))

    return dataclasses.replace(group, scores=[score(rollout) for rollout in group.rollouts])


def run(context: Context) -> None:
    """Train the stage of ``context.job`` and publish its checkpoint."""
    config = context.job.stage_config()
    assert isinstance(config, DistillStage)
    with open_teachers(context, config) as teachers:
        method = Distillation(config, teachers)
        with opened(context, method) as student:
            carry_out(student, method)

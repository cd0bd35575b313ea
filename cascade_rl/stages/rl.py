"""The RL stage: strictly on-policy GRPO, with all of its maths. ``onpolicy.loop.train`` is the loop around it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cascade_rl.algorithms.advantages import advantages_of_groups
from cascade_rl.algorithms.custom import CustomAdvantage, CustomLoss
from cascade_rl.algorithms.inputs import GroupInputs, LossInputs
from cascade_rl.algorithms.loading import load_function
from cascade_rl.algorithms.logprobs import TokenScores
from cascade_rl.algorithms.losses import Aggregate, rollout_weight, step_denominator
from cascade_rl.algorithms.objective import Objective
from cascade_rl.algorithms.overlong import soft_overlong_penalty
from cascade_rl.data.template import Template
from cascade_rl.inputs import search_path
from cascade_rl.recipe import RlStage
from cascade_rl.recipe.methods import LossConfig, MismatchConfig
from cascade_rl.rewarding import DomainScorer, Scorer
from cascade_rl.stages.context import Context
from cascade_rl.stages.fitting import refuse_unfit
from cascade_rl.stages.frozen.reference import start_reference
from cascade_rl.stages.onpolicy.guards import refuse_errors
from cascade_rl.stages.onpolicy.method import Gather, Groups, Method, Sequences
from cascade_rl.stages.onpolicy.options import RolloutOptions
from cascade_rl.stages.onpolicy.publish import carry_out
from cascade_rl.stages.onpolicy.requests import sampling_of
from cascade_rl.stages.onpolicy.run import RolloutRun
from cascade_rl.stages.onpolicy.setup import opened
from cascade_rl.stages.onpolicy.step_metrics import rollout_metrics
from cascade_rl.training.packing import MicroBatch, TrainingSequence, training_sequence
from cascade_rl.training.update import Screen, UpdateStats
from cascade_rl.types import Group, Prompt


@dataclass(frozen=True)
class RlLoss:
    """The loss terms of sampled tokens. Without ``loss`` and ``mismatch`` sections: -A log pi, the mean over tokens.

    ``objective`` has the recipe's clipping, mismatch correction, KL penalty and entropy bonus. A ``custom`` loss stands
    in place of its policy term; penalty and bonus are added to that as well.
    """

    objective: Objective
    aggregate: Aggregate
    fixed_length: int
    custom: CustomLoss | None = None

    @classmethod
    def of(cls, config: RlStage, search: Sequence[Path] = ()) -> RlLoss:
        """As the stage's recipe asks. ``search``: where a loss of the user's is looked for. Raises CascadeError when it
        is not found."""
        loss, mismatch = config.loss or LossConfig(), config.mismatch or MismatchConfig()
        # Each field of ``Objective`` but the first is a key of one of the two sections.
        keys = loss.model_dump() | mismatch.model_dump()
        objective = Objective(
            on_policy=config.updates == 1 or loss.use is not None,
            **{f.name: keys[f.name] for f in dataclasses.fields(Objective) if f.name != "on_policy"},
        )
        custom = loss.use and CustomLoss(loss.use, load_function(loss.use, search, "loss"), loss.params)
        return cls(objective, loss.aggregate, loss.fixed_length or config.rollout.max_new_tokens, custom or None)

    def __call__(self, row: MicroBatch, part: slice, logprobs: Tensor, entropy: Tensor) -> Tensor:
        """Loss terms [n] of the tokens ``part`` of ``row``; engine log-probs are on the support of ``logprobs``."""
        reference = None if row.reference_logprobs is None else row.reference_logprobs[part]
        if self.custom is None:
            return self.objective(row.advantages[part], row.engine_logprobs[part], reference, logprobs, entropy)
        terms = self.custom(inputs_of(row, part, logprobs, entropy))
        return self.objective.regularised(terms, reference, logprobs, entropy)

    def weight(self, length: int) -> float:
        """What each token of a rollout of ``length`` trained tokens counts."""
        return rollout_weight(length, self.aggregate)

    def denominator(self, *, tokens: int, rollouts: int) -> float:
        """What the sum of the weighed terms is divided by, from the counts of all ranks."""
        return step_denominator(self.aggregate, tokens=tokens, rollouts=rollouts, fixed_length=self.fixed_length)

    @property
    def needs_reference(self) -> bool:
        """Whether rows must carry the reference model's log-probs."""
        return self.objective.kl > 0 or (self.custom is not None and self.custom.traits.needs_reference)

    @property
    def zero_without_advantage(self) -> bool:
        """Whether a token with advantage 0 has neither loss nor gradient."""
        if self.objective.kl or self.objective.entropy:
            return False
        return self.custom is None or self.custom.traits.zero_without_advantage

    @property
    def screen(self) -> Screen | None:
        """What must see whole rollouts before the loss: ``mask: geometric``, and some custom losses. None: nothing."""
        if self.custom is not None and self.custom.traits.whole_rollouts is not None:
            return self._values_from_rollouts
        return self._without_masked_rollouts if self.objective.masks_rollouts else None

    def _without_masked_rollouts(self, row: MicroBatch, scores: TokenScores) -> dict[str, Tensor]:
        return {"advantages": row.advantages * self.objective.kept(scores.logprobs, row.engine_logprobs, row.lengths)}

    def _values_from_rollouts(self, row: MicroBatch, scores: TokenScores) -> dict[str, Tensor]:
        assert self.custom is not None
        inputs = inputs_of(row, slice(None), scores.logprobs, scores.entropy, row.lengths)
        return {"from_rollouts": self.custom.from_rollouts(inputs)}

    @staticmethod
    def measured(row: MicroBatch) -> Tensor:
        """[N] bool, the tokens with an advantage. These are the same tokens whether or not a KL penalty or an entropy
        bonus has the others go through the policy as well."""
        return row.advantages != 0

    def measures(self, row: MicroBatch, scores: TokenScores) -> dict[str, Tensor]:
        """Name -> [N] values whose means are metrics (``Objective.measures``, and those of a custom loss)."""
        found = self.objective.measures(
            row.advantages, row.engine_logprobs, row.reference_logprobs, scores.logprobs, row.lengths
        )
        if self.custom is not None:
            lengths = None if self.custom.traits.whole_rollouts is None else row.lengths
            found |= self.custom.measures(inputs_of(row, slice(None), scores.logprobs, scores.entropy, lengths))
        return found

    @staticmethod
    def metrics(stats: UpdateStats) -> dict[str, float]:
        """The metrics of an update."""
        return stats.metrics()


def inputs_of(
    row: MicroBatch, part: slice, logprobs: Tensor, entropy: Tensor, lengths: Tensor | None = None
) -> LossInputs:
    """The tokens ``part`` of ``row`` as a custom loss is given them; ``lengths`` where they are whole rollouts."""
    return LossInputs(
        logprobs=logprobs,
        entropy=entropy,
        advantages=row.advantages[part],
        engine_logprobs=row.engine_logprobs[part],
        reference_logprobs=None if row.reference_logprobs is None else row.reference_logprobs[part],
        from_rollouts=None if row.from_rollouts is None else row.from_rollouts[part],
        lengths=lengths,
    )


class Grpo(Method[RlStage]):
    """Group-relative policy optimisation: a rollout's advantage is how much better it was than its siblings."""

    def __init__(self, config: RlStage, search: Sequence[Path] = ()) -> None:
        """``search``: where a loss or an advantage of the user's is looked for. Raises CascadeError when it is not
        found."""
        super().__init__(config)
        self._loss = RlLoss.of(config, search)
        self._advantage: CustomAdvantage | None = None
        if "advantage" in config.functions:
            own = config.functions["advantage"]
            self._advantage = CustomAdvantage(own.use, load_function(own.use, search, "advantage"), own.params)
        self.updates_per_batch = config.updates
        self.needs_whole_batch = self._advantage is not None and self._advantage.needs_whole_batch
        self._flat_steps = 0  # in a row

    @property
    def options(self) -> RolloutOptions:
        """The recipe's."""
        config = self.config
        hopeless = bool(config.abort_hopeless)
        return RolloutOptions(config.overlong, config.dynamic_sampling, hopeless, config.curriculum)

    @contextlib.contextmanager
    def open_scorer(self, context: Context, template: Template, search: list[Path]) -> Iterator[DomainScorer]:
        """The scorer of each domain's reward, all started. Raises RewardError when one cannot be."""
        with contextlib.ExitStack() as opened_scorers:
            scorers = {
                domain: opened_scorers.enter_context(
                    Scorer(reward, search, context.reward_workers(reward), template.thinks_by_default, watched=True)
                )
                for domain, reward in self.config.rewards_by_domain.items()
            }
            yield DomainScorer(scorers)

    def check_prompts(self, prompts: Sequence[Prompt], search: list[Path]) -> None:
        """Refuse domains without a reward, and rewards that need a column which no prompt has."""
        refuse_unfit(self.config, prompts, search)

    def prepare(self, run: RolloutRun) -> None:
        """Load the reference model, where the loss needs one."""
        loss = self.config.loss
        if loss is not None and loss.kl > 0 and loss.kl_estimator == "k1":
            run.context.say(
                "WARNING: `loss.kl_estimator: k1` is shown but penalises nothing: its gradient has mean zero. Use k2 "
                "or k3."
            )
        if self._loss.needs_reference:
            self.reference = start_reference(run.context, self.config, run.policy)

    def shape(self, group: Group) -> Group:
        """Take ``overlong: soft`` off the values of ``group``; the scores' details keep the penalty."""
        if self.config.overlong_buffer is None:
            return group
        longest = sampling_of(self.config, group.prompt).max_new_tokens
        buffer = min(self.config.overlong_buffer, longest)
        penalties = [soft_overlong_penalty(len(rollout.token_ids), longest, buffer) for rollout in group.rollouts]
        scores = [
            dataclasses.replace(
                score, value=score.value + penalty, details={**score.details, "overlong_penalty": penalty}
            )
            for score, penalty in zip(group.scores, penalties, strict=True)
        ]
        return dataclasses.replace(group, scores=scores)

    def check(self, groups: Sequence[Group], gather: Gather) -> None:
        """Refuse groups whose graders failed too often."""
        refuse_errors(groups, gather, self.config.rewards_by_domain)

    def sequences(self, groups: Groups, gather: Gather) -> Sequences:
        """The rollouts of each group that count, each with its advantage, in rollout order."""
        least = 1 if self.needs_whole_batch else 2  # alone in its group a rollout has no baseline, but in its batch
        members = {position: group.members(self.config.drops_truncated) for position, group in groups.items()}
        inputs = {p: _inputs(groups[p], indices) for p, indices in members.items() if len(indices) >= least}
        advantages = self.advantages(inputs, gather)
        return {
            position: [
                self._sequence(group, index, advantage)
                for index, advantage in zip(members[position], advantages[position], strict=True)
            ]
            if position in advantages
            else []
            for position, group in groups.items()
        }

    def advantages(self, groups: Mapping[int, GroupInputs], gather: Gather) -> dict[int, list[float]]:
        """Position -> an advantage for each rollout of the group. A collective call with ``needs_whole_batch``."""
        batch = dict(groups)
        if self.needs_whole_batch:
            everyone = gather(batch)
            # In the order of positions, so that the batch is the same, bit for bit, for any number of ranks.
            batch = dict(sorted((position, group) for own in everyone for position, group in own.items()))
        if self._advantage is not None:
            values = self._advantage(list(batch.values()))
        else:
            values = advantages_of_groups(
                [group.rewards.tolist() for group in batch.values()], str(self.config.advantage)
            )
        found = dict(zip(batch, values, strict=True))
        return {position: found[position] for position in groups}

    def _sequence(self, group: Group, index: int, advantage: float) -> TrainingSequence:
        rollout = group.rollouts[index]
        return training_sequence(
            group.prompt_token_ids,
            rollout.token_ids,
            rollout.logprobs,
            advantage,
            self._loss.weight(len(rollout.token_ids)),
            kept=rollout.kept,
            temperature=self.config.rollout.temperature,
        )

    def has_gradient(self, sequence: TrainingSequence) -> bool:
        """A rollout with advantage 0 has none, but for KL penalty, entropy bonus and custom losses that say otherwise.

        The others are left out of forward and backward passes, but not of the denominator: the update is the same.
        """
        return not self._loss.zero_without_advantage or bool(sequence.advantages.any())

    @property
    def loss(self) -> RlLoss:
        """The loss."""
        return self._loss

    def metrics(self, groups: Sequence[Group], gather: Gather) -> dict[str, float]:
        """Rewards, lengths and flat groups. A collective call."""
        return rollout_metrics(gather, groups, self.config.drops_truncated)

    def warn(self, metrics: Mapping[str, float], step: int, say: Callable[[str], object]) -> None:
        """Say so where the rollouts of each prompt all earned the same: at the first such step and every tenth in a
        row."""
        self._flat_steps = self._flat_steps + 1 if metrics["groups/zero_variance"] == 1.0 else 0
        if self._flat_steps % 10 == 1:
            say(
                f"WARNING: step {step + 1}: the rollouts of each prompt all earned the same (mean reward "
                f"{metrics['reward/mean']:.3g}, {100 * metrics['completions/truncated']:.0f}% cut off at "
                "max_new_tokens): the reward taught nothing. Look at the rollouts: prompts may be too hard or too "
                "easy, answers too long for the limit, or the reward blind."
            )


def _inputs(group: Group, members: Sequence[int]) -> GroupInputs:
    return GroupInputs(
        torch.tensor([group.scores[i].value for i in members], dtype=torch.float64),
        torch.tensor([len(group.rollouts[i].token_ids) for i in members]),
        group.prompt.domain,
    )


def run(context: Context) -> None:
    """Train the stage of ``context.job`` and publish its checkpoint."""
    config = context.job.stage_config()
    assert isinstance(config, RlStage)
    method = Grpo(config, search_path(context.job.recipe_path))
    with opened(context, method) as rl:
        carry_out(rl, method)

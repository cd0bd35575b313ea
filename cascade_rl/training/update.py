"""One on-policy optimizer step: a single forward and backward over the rollouts of the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cascade_rl.algorithms.losses import on_policy_loss_sum
from cascade_rl.training.packing import MicroBatch
from cascade_rl.training.policy import Policy


@dataclass(frozen=True)
class UpdateStats:
    """Over all ranks; token means."""

    loss: float
    entropy: float
    logprob_gap_mean: float
    """Mean |trainer - engine| log-prob: the two must describe the same policy."""
    logprob_gap_max: float
    trained_tokens: int


def accumulate(
    policy: Policy, micro_batches: Sequence[MicroBatch], *, temperature: float, engine_temperature: float
) -> UpdateStats:
    """Gradients of the step's loss, left on the parameters; ``policy.step()`` applies them.

    The loss is the mean over the N trained tokens of all ranks, so it depends neither on the packing nor on the
    number of ranks. ``engine_temperature`` is that of the engine's log-probs (1 when it reports raw ones).
    """
    ranks = policy.ranks
    totals = torch.zeros(4, dtype=torch.float64)  # loss, entropy, gap, tokens of this rank
    totals[3] = sum(len(batch.targets) for batch in micro_batches)
    trained = int(ranks.sum(totals[3:].clone().to(ranks.device)).item())
    token_count = max(1, trained)  # none at all where every rollout was filtered out
    largest_gap = 0.0
    for batch in micro_batches:
        scores = policy.score(batch, temperature)
        loss = on_policy_loss_sum(scores.logprobs, batch.advantages.to(ranks.device))
        (loss / token_count).backward()
        ours = scores.raw_logprobs if engine_temperature == 1.0 else scores.logprobs.detach()
        gap = (ours - batch.engine_logprobs.to(ranks.device)).abs()
        totals[0] += float(loss.detach())
        totals[1] += float(scores.entropy.double().sum())
        totals[2] += float(gap.double().sum())
        largest_gap = max(largest_gap, float(gap.max()))
    totals = ranks.sum(totals.to(ranks.device)).cpu()
    loss, entropy, gap = (totals[:3] / token_count).tolist()
    return UpdateStats(loss, entropy, gap, ranks.max(largest_gap), trained)

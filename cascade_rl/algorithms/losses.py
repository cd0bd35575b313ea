"""Policy-gradient losses over flat token tensors, unnormalised: the caller divides once by the global count."""

from __future__ import annotations

from torch import Tensor


def on_policy_loss_sum(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """Sum over tokens of -A * log pi: strictly on-policy GRPO, where the importance ratio is 1 (P1 section 4.1).

    logprobs, advantages: [T], the advantage of a rollout repeated over its tokens. Divide by the number of response
    tokens of the whole step (all ranks, all micro-batches) to get the loss; a per-rank or per-micro-batch count
    would give more weight to the tokens of ranks that drew short rollouts.
    """
    return -(logprobs * advantages).sum()

"""Policy-gradient losses over flat token tensors, unnormalised: the caller divides once by the global denominator.

All are element-wise in the token's log-prob and entropy, so that they can be taken chunk by chunk
(``cascade_rl.algorithms.logprobs``). The signs are those of a loss: lower is better.
"""

from __future__ import annotations

from torch import Tensor


def policy_gradient(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """-A * log pi per token: strictly on-policy GRPO, where the importance ratio is 1 (P1 section 4.1).

    logprobs, advantages: [T], the advantage of a rollout repeated over its tokens -> [T]. Sum, and divide by the number
    of response tokens of the whole step (all ranks, all micro-batches) to get the loss; a per-rank or per-micro-batch
    count would give more weight to the tokens of ranks that drew short rollouts.
    """
    return -logprobs * advantages

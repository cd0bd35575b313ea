"""A loss, an advantage and a reward of one's own, for recipes/new-method.yaml (docs/new-method.md)."""

from torch import Tensor

from cascade_rl.algorithms.inputs import GroupInputs, LossInputs, loss_function


def bounded(inputs: LossInputs, *, highest: float = 2.0) -> dict[str, Tensor]:
    """Where the weight is at its bound. -> {name: [n]}"""
    return {"bounded": ((inputs.logprobs - inputs.engine_logprobs).exp() > highest).to(inputs.logprobs)}


@loss_function(measures=bounded, zero_without_advantage=True)
def loss(inputs: LossInputs, *, highest: float = 2.0) -> Tensor:
    """-w A log pi with w = min(pi / pi_old, highest), without gradient (CISPO, arXiv 2506.13585). -> [n]"""
    weight = (inputs.logprobs - inputs.engine_logprobs).detach().exp().clamp(max=highest)
    return -weight * inputs.advantages * inputs.logprobs


def advantage(group: GroupInputs, *, scale: float = 1.0) -> Tensor:
    """r - median of the group: one outlier among the siblings does not move it. [G] -> [G]"""
    return scale * (group.rewards - group.rewards.median())


def digits(completion: str) -> float:
    """The share of distinct characters that are digits, a reward in which even an untrained model varies."""
    return len(set(completion) & set("0123456789")) / max(1, len(set(completion)))

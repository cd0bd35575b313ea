"""Losses and advantages of the user's, called once on a few made-up tokens, so that `check` finds what a run would."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

from cascade_rl.algorithms.custom import CustomAdvantage, CustomLoss
from cascade_rl.algorithms.inputs import GroupInputs, LossInputs
from cascade_rl.types import CascadeError

LENGTHS = (3, 2)
"""Tokens of two rollouts; the loss sees the first two tokens, then the others."""


def loss_problem(use: str, function: Callable[..., Any], keys: Mapping[str, Any], with_reference: bool) -> str | None:
    """What is wrong with the loss, or None. ``with_reference``: reference log-probs will be there."""
    loss, tokens = CustomLoss(use, function, keys), _tokens(with_reference)
    try:
        lengths = torch.tensor(LENGTHS)
        if loss.traits.whole_rollouts is not None:
            values = loss.from_rollouts(dataclasses.replace(tokens, lengths=lengths))
            tokens = dataclasses.replace(tokens, from_rollouts=values)
        terms = [loss(_part(tokens, part)) for part in (slice(0, 2), slice(2, None))]
        loss.measures(dataclasses.replace(tokens, lengths=None if loss.traits.whole_rollouts is None else lengths))
    except CascadeError as error:
        return str(error)
    if not any(each.requires_grad for each in terms):
        return f"loss {use}: its terms depend on neither log-probs nor entropy, so that there is no gradient"
    return None


def advantage_problem(use: str, function: Callable[..., Any], keys: Mapping[str, Any], group_size: int) -> str | None:
    """What is wrong with the advantage, or None."""
    groups = [
        GroupInputs(torch.arange(group_size, dtype=torch.float64) / divisor, torch.arange(1, group_size + 1))
        for divisor in (group_size, 2 * group_size)
    ]
    try:
        CustomAdvantage(use, function, keys)(groups)
    except CascadeError as error:
        return str(error)
    return None


def _tokens(with_reference: bool) -> LossInputs:
    logprobs = torch.tensor([-0.5, -1.0, -2.0, -0.1, -3.0])
    return LossInputs(
        logprobs=logprobs,
        entropy=torch.tensor([0.5, 1.0, 1.5, 0.2, 2.0]),
        advantages=torch.tensor([1.0, 1.0, 1.0, -0.5, -0.5]),
        engine_logprobs=logprobs - torch.tensor([0.01, -0.01, 0.0, 0.02, 0.0]),
        reference_logprobs=logprobs - 0.1 if with_reference else None,
    )


def _part(tokens: LossInputs, part: slice) -> LossInputs:
    """``part`` of ``tokens`` as a loss is given it: log-probs and entropy with gradient."""
    cut = {name: value[part].clone() for name, value in vars(tokens).items() if value is not None}
    return LossInputs(
        **{**cut, "logprobs": cut["logprobs"].requires_grad_(), "entropy": cut["entropy"].requires_grad_()}
    )

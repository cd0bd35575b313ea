"""What a loss or an advantage named by import path is given, and what it may say about itself (docs/new-method.md).

::

    loss: {use: "my_methods:loss", power: 0.5}            # def loss(inputs: LossInputs, *, power: float) -> Tensor
    advantage: {use: "my_methods:advantage", scale: 2.0}  # def advantage(group: GroupInputs, *, scale: float) -> Tensor

Letters: n tokens; G rollouts of one prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from cascade_rl.algorithms.rollout_means import rollout_means

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class LossInputs:
    """n sampled tokens of a packed row, all tensors [n] on one device, float32 (float64 for a float64 policy).

    All log-probs are of the sampled tokens, at the sampling temperature and on one support.
    """

    logprobs: Tensor
    """By the policy in training; with gradient."""
    entropy: Tensor
    """Of the policy's distribution at each token, in nats; with gradient."""
    advantages: Tensor
    """One number for all tokens of a rollout."""
    engine_logprobs: Tensor
    """By the engine that sampled the tokens: log pi_old."""
    reference_logprobs: Tensor | None = None
    """By the weights the stage started from; None unless ``loss.kl`` is above 0 or the loss ``needs_reference``."""
    from_rollouts: Tensor | None = None
    """What ``whole_rollouts`` of the loss has returned for these tokens; None where it has none."""
    lengths: Tensor | None = None
    """[rollouts] int64, how many of the n tokens belong to each rollout, in their order. None where the tokens are a
    part of a row, as a loss sees them."""

    def mean_over_rollouts(self, values: Tensor) -> Tensor:
        """The mean of ``values`` [n] over each rollout, repeated for its tokens -> [n] of the same type.

        Raises ValueError in a loss, which sees parts of rollouts: only ``whole_rollouts`` and ``measures`` of a loss
        with ``whole_rollouts`` see whole ones.
        """
        if self.lengths is None:
            raise ValueError("a loss sees parts of rollouts; take means over rollouts in its `whole_rollouts`")
        return rollout_means(values, self.lengths).to(values)


@dataclass(frozen=True)
class GroupInputs:
    """The rollouts of one prompt that count, G of them: graded, and not left out as truncated."""

    rewards: Tensor
    """[G] float64."""
    lengths: Tensor
    """[G] int64, tokens of each rollout."""
    domain: str = ""
    """The prompt's domain; empty where the stage has one reward for all rows."""


@dataclass(frozen=True)
class LossTraits:
    """What a loss says about itself, by ``loss_function``."""

    whole_rollouts: Callable[..., Tensor] | None = None
    measures: Callable[..., Mapping[str, Tensor]] | None = None
    needs_reference: bool = False
    zero_without_advantage: bool = False


def loss_function(
    *,
    whole_rollouts: Callable[..., Tensor] | None = None,
    measures: Callable[..., Mapping[str, Tensor]] | None = None,
    needs_reference: bool = False,
    zero_without_advantage: bool = False,
) -> Callable[[Function], Function]:
    """Say what is special about a loss. A decorator; a loss without it has none of these traits.

    ``whole_rollouts(inputs) -> [n]``: what must be known of whole rollouts before the loss, which sees parts of them.
    It is called on whole rows without gradient, and costs one more forward pass; the loss finds what it returned in
    ``inputs.from_rollouts``.
    ``measures(inputs) -> {name: [n]}``: metrics ``loss/NAME``, means over all tokens of the loss.
    ``needs_reference``: ``inputs.reference_logprobs`` are needed.
    ``zero_without_advantage``: a token with advantage 0 has neither loss nor gradient, so that rollouts without an
    advantage need not go through the policy.

    Both functions are called with those of the recipe's keys that they take.
    """

    def mark(function: Function) -> Function:
        traits = LossTraits(whole_rollouts, measures, needs_reference, zero_without_advantage)
        function.loss_traits = traits  # type: ignore[attr-defined]
        return function

    return mark


def whole_batch(function: Function) -> Function:
    """Mark an advantage that is called once a step with the groups of all ranks, in the order of their prompts:
    ``advantage(groups: Sequence[GroupInputs]) -> Sequence[Tensor]``, each [G]. A decorator."""
    function.whole_batch = True  # type: ignore[attr-defined]
    return function

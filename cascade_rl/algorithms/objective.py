"""The per-token loss of an RL step, put together from plain values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cascade_rl.algorithms.losses import (
    KlEstimator,
    clipped_surrogate,
    entropy_bonus,
    is_clipped,
    kl_penalty,
    policy_gradient,
)
from cascade_rl.algorithms.mismatch import (
    Mask,
    band_mask,
    difference_mask,
    geometric_mask,
    logprob_gap,
    mismatch_k3,
    truncated_weight,
)


@dataclass(frozen=True)
class Objective:
    """objective(advantages, engine_logprobs, reference_logprobs, logprobs, entropy) -> loss terms [n], unnormalised.

    All are [n], for the same tokens: advantages; log-probs by the engine that drew them and by the reference model
    (None without KL penalty); log-probs and entropy by the policy, with gradient. The default is P1's: -A log pi.

    On-policy (one update per batch) the old log-probs are the policy's own, detached: the ratio is 1, nothing is ever
    clipped, and the gradient is -w A grad log pi. w is the correction for a mismatch, detached: min(trainer / engine,
    ``cap``), or 1 without ``cap``; and 0 where ``mask`` leaves the token out. Off-policy (several updates) the old
    log-probs are the engine's, so that nothing is computed twice: the ratio trainer / engine holds both the mismatch
    and what earlier updates changed, ``cap`` truncates it (``clipped_surrogate``), and the masks act on it too.

    Neither ``cap`` nor ``mask`` touches the KL penalty, the entropy bonus or the denominator. A token with advantage 0,
    or left out by ``mask``, has a policy term of exactly 0 with gradient 0, whatever its log-probs are. Log-probs that
    are NaN in any other token stay NaN, so that the step is noticed and skipped.

    **Support.** Engine, reference and policy log-probs must be at one temperature. Where top-p or top-k truncate
    sampling, the engine reports raw log-probs (temperature 1, whole vocabulary), and the ratio is that of the raw
    probabilities: hand in engine_logprobs brought to the temperature of ``logprobs``, raw engine + logprobs - raw
    trainer (``on_support``). Then the ratio's value is raw trainer / raw engine, and its gradient is that of log pi
    at the sampling temperature. It is not the ratio of the probabilities that tokens were drawn by: those are
    renormalised over the kept tokens, whose share of the whole changes with the policy too. With ``mismatch.support:
    kept`` all log-probs handed in are over the kept tokens, and the ratio is the latter.
    """

    on_policy: bool = True
    clip_low: float | None = None
    clip_high: float | None = None
    kl: float = 0.0
    kl_estimator: KlEstimator = "k3"
    entropy: float = 0.0
    cap: float | None = None
    mask: Mask = "none"
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        bounds = {"none": (), "difference": (self.high,)}.get(self.mask, (self.low, self.high))
        if None in bounds:
            raise ValueError(f"mask {self.mask} lacks its bounds: low {self.low}, high {self.high}")

    def __call__(
        self,
        advantages: Tensor,
        engine_logprobs: Tensor,
        reference_logprobs: Tensor | None,
        logprobs: Tensor,
        entropy: Tensor,
    ) -> Tensor:
        terms = self._policy_terms(advantages, engine_logprobs, logprobs)
        return self.regularised(terms, reference_logprobs, logprobs, entropy)

    def regularised(
        self, terms: Tensor, reference_logprobs: Tensor | None, logprobs: Tensor, entropy: Tensor
    ) -> Tensor:
        """``terms`` of a policy with the KL penalty and the entropy bonus added. [n] each -> [n]."""
        if self.kl:
            terms = terms + self.kl * kl_penalty(logprobs, _present(reference_logprobs), self.kl_estimator)
        if self.entropy:
            terms = terms + self.entropy * entropy_bonus(entropy)
        return terms

    def _policy_terms(self, advantages: Tensor, engine_logprobs: Tensor, logprobs: Tensor) -> Tensor:
        taught = advantages != 0
        if self.mask not in ("none", "geometric"):
            taught = taught & self.kept(logprobs, engine_logprobs)
        # A token that teaches nothing is taken out before ratios are made, not after: 0 times infinity is NaN.
        logprobs, engine_logprobs = (torch.where(taught, values, 0.0) for values in (logprobs, engine_logprobs))
        if self.on_policy:
            terms = policy_gradient(logprobs, advantages)
            if self.cap is not None:
                terms = terms * truncated_weight(logprob_gap(logprobs, engine_logprobs), self.cap)
        else:
            terms = clipped_surrogate(
                logprobs, engine_logprobs, advantages, clip_low=self.clip_low, clip_high=self.clip_high, cap=self.cap
            )
        return torch.where(taught, terms, 0.0)

    @property
    def masks_rollouts(self) -> bool:
        """Whether ``kept`` decides about whole rollouts. A loss sees chunks of them, so it is not applied here: score
        the row first, and set the advantages of tokens that are not kept to 0."""
        return self.mask == "geometric"

    def kept(self, logprobs: Tensor, engine_logprobs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[n] bool: False where ``mask`` leaves the token out. lengths: [sequences] trained tokens of each rollout of a
        packed row; needed where ``masks_rollouts``, whose log-probs are those of the whole row."""
        gap = logprob_gap(logprobs, engine_logprobs)
        if self.mask == "none":
            return torch.ones_like(gap, dtype=torch.bool)
        assert self.high is not None
        if self.mask == "difference":
            return difference_mask(logprobs, engine_logprobs, self.high)
        assert self.low is not None
        if self.mask == "band":
            return band_mask(gap, self.low, self.high)
        assert lengths is not None, "mask: geometric is about whole rollouts"
        return geometric_mask(gap, lengths, self.low, self.high)

    def measures(
        self,
        advantages: Tensor,
        engine_logprobs: Tensor,
        reference_logprobs: Tensor | None,
        logprobs: Tensor,
        lengths: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Per token, detached; their means over trained tokens are metrics. Arguments as above, of whole rows.

        mismatch/k3: KL(engine || trainer); mismatch/cut: share of weights that ``cap`` truncates; mismatch/masked:
        share left out by ``mask``; loss/clipped: share without gradient because it is clipped; loss/kl: k3 estimate of
        the divergence from the reference, whichever estimator is trained on. Names depend on the settings only.
        """
        logprobs = logprobs.detach()
        gap = logprob_gap(logprobs, engine_logprobs)
        found = {"mismatch/k3": mismatch_k3(gap)}
        if self.cap is not None:
            found["mismatch/cut"] = (gap.exp() > self.cap).to(gap)
        if self.mask != "none":
            found["mismatch/masked"] = (~self.kept(logprobs, engine_logprobs, lengths)).to(gap)
        if not self.on_policy:
            found["loss/clipped"] = is_clipped(gap, advantages, clip_low=self.clip_low, clip_high=self.clip_high).to(
                gap
            )
        if self.kl:
            found["loss/kl"] = kl_penalty(logprobs, _present(reference_logprobs))
        return found


def on_support(engine_raw: Tensor, logprobs: Tensor, raw_logprobs: Tensor) -> Tensor:
    """Raw engine log-probs brought to the temperature of ``logprobs``, by what temperature does to the trainer's own.

    [n] each, detached -> [n]: engine_raw + logprobs - raw_logprobs, so that logprobs - result = raw_logprobs -
    engine_raw.
    """
    return engine_raw + (logprobs.detach() - raw_logprobs)


def _present(reference_logprobs: Tensor | None) -> Tensor:
    if reference_logprobs is None:
        raise ValueError("a KL penalty needs the reference model's log-probs")
    return reference_logprobs

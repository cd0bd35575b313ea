"""On-policy distillation: the student's own tokens, each weighed by how much likelier a teacher finds it."""

from __future__ import annotations

import torch
from torch import Tensor

from cascade_rl.algorithms.mismatch import band_mask, logprob_gap
from cascade_rl.algorithms.ratios import ratio_of


def mopd_loss(
    logprobs: Tensor, teacher_logprobs: Tensor, engine_logprobs: Tensor, *, low: float = 0.5, high: float = 2.0
) -> Tensor:
    """-w a log pi per token (MOPD, arXiv 2603.19220; shared notes "recipe", section 10.1).

        a = log pi_teacher - log pi                 detached: the sampled token's share of the reverse KL
        w = r where low <= r <= high, else 0        detached; r = pi / pi_engine

    logprobs (with gradient), teacher_logprobs, engine_logprobs: [T], of the sampled tokens, all at one temperature and
    on one support -> [T]. The loss is the mean over each response's tokens, then over responses: ``rollout_weight`` and
    ``step_denominator`` with aggregate "sequence". A token left out by w still counts in its response's length; its
    value and gradient are 0 whatever its log-probs are, infinite ones too.
    """
    gap = logprob_gap(logprobs, engine_logprobs)
    kept = band_mask(gap, low, high)
    # Before anything is multiplied: 0 times infinity is NaN.
    gap, logprobs, teacher_logprobs = (torch.where(kept, values, 0.0) for values in (gap, logprobs, teacher_logprobs))
    weight = torch.where(kept, ratio_of(gap), 0.0)
    return -weight * (teacher_logprobs - logprobs.detach()) * logprobs


def mopd_measures(
    logprobs: Tensor, teacher_logprobs: Tensor, engine_logprobs: Tensor, *, low: float = 0.5, high: float = 2.0
) -> dict[str, Tensor]:
    """Per token, detached, whose means over trained tokens are metrics. [T] each, as in ``mopd_loss``.

    distill/advantage_mean: a, whose mean over tokens drawn from pi estimates -KL(pi || teacher) without bias (k1);
    distill/masked: 1 where w = 0.
    """
    kept = band_mask(logprob_gap(logprobs, engine_logprobs), low, high)
    return {"distill/advantage_mean": teacher_logprobs - logprobs.detach(), "distill/masked": (~kept).to(logprobs)}

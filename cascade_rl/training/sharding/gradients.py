"""Sums over ranks in pieces of bounded size, so that a gradient is never held twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from cascade_rl.training.ranks import Ranks

BUCKET_BYTES = 64 << 20


def buckets(tensors: Iterable[Tensor], limit: int = BUCKET_BYTES) -> Iterator[list[Tensor]]:
    """Consecutive ``tensors`` in groups of at most ``limit`` bytes; a larger one is a group of its own."""
    group: list[Tensor] = []
    size = 0
    for tensor in tensors:
        count = tensor.numel() * tensor.element_size()
        if group and size + count > limit:
            yield group
            group, size = [], 0
        group.append(tensor)
        size += count
    if group:
        yield group


def sum_gradients(parameters: Sequence[Tensor], ranks: Ranks) -> bool:
    """Sum ``.grad`` over ranks, in place; a rank without rollouts contributes zeros. A collective call.

    Returns False where no rank has a gradient: then there is none afterwards either, and the optimizer leaves the
    weights alone. Zeros would let its momentum move them, on several ranks but not on one.
    """
    if not ranks.any(any(p.grad is not None for p in parameters)):
        return False
    if ranks.world_size == 1:
        return True
    for group in buckets(parameters):
        for p in group:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        if len(group) == 1:
            group[0].grad = ranks.sum(_whole(group[0]).contiguous())
            continue
        flat = torch.cat([_whole(p).reshape(-1) for p in group])
        ranks.sum(flat)
        for p, part in zip(group, flat.split([p.numel() for p in group]), strict=True):
            _whole(p).copy_(part.view_as(p))
    return True


def _whole(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def clip_factor(norm: float, limit: float) -> float:
    """What a gradient of ``norm`` is to be multiplied by, so that its norm is at most ``limit`` (as torch does)."""
    return min(1.0, limit / (norm + 1e-6))

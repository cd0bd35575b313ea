"""What layers keep for the backward pass, waiting on the CPU meanwhile.

With recomputed layers that is their inputs alone: two bytes times the hidden size for each token and layer, which is
what fills a device at long contexts (shared notes "training", section 3.6).
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

SMALLEST = 4096
"""Elements below which moving a tensor costs more than keeping it."""


def activations_on_cpu(tokens: int) -> contextlib.AbstractContextManager[Any]:
    """Around a forward pass over a row of ``tokens`` tokens: saved tensors that have a number for each token go to the
    CPU. Weights are saved too and have not: they stay, since sharding gathers them anew in any case."""

    def pack(tensor: Tensor) -> Tensor | tuple[torch.device, Tensor]:
        if tokens not in tensor.shape or tensor.numel() < SMALLEST or not tensor.is_floating_point():
            return tensor
        pinned = tensor.device.type == "cuda"
        kept = torch.empty(tensor.shape, dtype=tensor.dtype, layout=tensor.layout, pin_memory=pinned)
        kept.copy_(tensor, non_blocking=pinned)
        return tensor.device, kept

    def unpack(packed: Tensor | tuple[torch.device, Tensor]) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        device, kept = packed
        return kept.to(device, non_blocking=device.type == "cuda")

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)

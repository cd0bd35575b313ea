"""A model as a function of a packed row: what sharding hooks onto.

ZeRO-3 and FSDP2 gather weights when the module that owns them is called, so nothing may reach for a weight beside such
a call: a head too is a module that is called, with hidden states and what the loss needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cascade_rl.training.offloading import activations_on_cpu
from cascade_rl.training.packing import MicroBatch

Outputs = tuple[Tensor | None, *tuple[Tensor, ...]]
"""(loss | None, what the head says without gradient, ...); plain tensors, since hooks look into outputs."""
Terms = Callable[..., Tensor]
"""What the loss makes of what the head says; its arguments are the head's (``logprobs.Terms``, ``reward_model``)."""


class Root(torch.nn.Module):
    """``model`` as a function of a packed row. Its own name is in front of every parameter's (``model.``)."""

    def __init__(self, model: Any, *, half: bool, offload_activations: bool = False) -> None:
        super().__init__()
        self.model = model
        self._half, self._offload = half, offload_activations

    def forward(self, batch: MicroBatch, terms: Any = None) -> Outputs:
        """Without ``terms`` there is no loss, and no backward pass follows."""
        raise NotImplementedError

    def _offloading(self, batch: MicroBatch, terms: Any) -> contextlib.AbstractContextManager[Any]:
        """Around the layers: what they keep for the backward pass goes to the CPU where that is asked for."""
        if not self._offload or terms is None:
            return contextlib.nullcontext()
        return activations_on_cpu(batch.input_ids.shape[1])

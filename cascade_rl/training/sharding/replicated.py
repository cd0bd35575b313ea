"""``ddp``: every rank holds the whole policy, and gradients are summed over ranks at the step, bucket by bucket."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cascade_rl.recipe import OptimizerConfig
from cascade_rl.training.packing import MicroBatch
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.root import Outputs, Root, Terms
from cascade_rl.training.sharding.base import Piece, Weights
from cascade_rl.training.sharding.gradients import sum_gradients


class Replicated:
    """See ``Sharding``. With ``offload_optimizer`` the optimizer works on a copy of the weights on the CPU."""

    needs_lockstep = False

    def __init__(self, root: Root, config: OptimizerConfig, ranks: Ranks, *, offload_optimizer: bool) -> None:
        self._root, self._ranks, self._clip = root, ranks, config.grad_clip
        self._names = [name for name, p in root.model.named_parameters() if p.requires_grad]
        self._parameters = [p for p in root.model.parameters() if p.requires_grad]
        self._masters = self._parameters
        if offload_optimizer:
            self._masters = [torch.nn.Parameter(p.detach().to("cpu", copy=True)) for p in self._parameters]
        self.optimizer = adamw(self._masters, config, on_cpu=offload_optimizer)

    def run(self, batch: MicroBatch, terms: Terms | None) -> Outputs:
        return self._root(batch, terms)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, denominator: float) -> float:
        if not sum_gradients(self._parameters, self._ranks):
            return 0.0
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.div_(denominator)
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self._clip))
        if math.isfinite(norm):
            self._apply()
        self.discard()
        return norm

    def _apply(self) -> None:
        if self._masters is self._parameters:
            self.optimizer.step()
            return
        for master, parameter in zip(self._masters, self._parameters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.cpu()
            parameter.grad = None
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loaded()

    def discard(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def weights(self, bucket_mib: int, dtype: torch.dtype | None) -> Weights:
        for name, parameter in self._root.model.named_parameters():
            yield name, parameter.detach()

    def pieces(self) -> Iterator[Piece]:
        """Every rank has everything; in a state each has an equal run of all parameters one after another."""
        total = sum(master.numel() for master in self._masters)
        first, last = (total * rank // self._ranks.world_size for rank in (self._ranks.rank, self._ranks.rank + 1))
        begin = 0
        for whole in self.targets():
            size = whole.weight.numel()
            start, end = max(0, first - begin), min(size, last - begin)
            if start < end:
                yield replace(whole, start=start, weight=whole.weight[start:end], offset=start)
            begin += size

    def targets(self) -> Iterator[Piece]:
        for name, master in zip(self._names, self._masters, strict=True):
            yield Piece(name, 0, tuple(master.shape), master.detach().view(-1), master)

    def loaded(self) -> None:
        if self._masters is not self._parameters:
            with torch.no_grad():
                for master, parameter in zip(self._masters, self._parameters, strict=True):
                    parameter.copy_(master)

    def marks(self) -> tuple[str, str]:
        return "ddp", self._masters[0].device.type


def adamw(parameters: Iterable[Tensor], config: OptimizerConfig, *, on_cpu: bool = False) -> torch.optim.AdamW:
    """AdamW as every strategy uses it; torch's own fused one where it works on the CPU beside an accelerator, which
    needs no compiler there."""
    return torch.optim.AdamW(
        decay_groups(parameters, config),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True if on_cpu else None,
    )


def decay_groups(parameters: Iterable[Tensor], config: OptimizerConfig) -> list[dict[str, Any]]:
    """``parameters``, whole or as DTensors, in the optimizer's groups: all in one where they all decay alike, else
    those that decay before the others. Within a group they keep their order."""
    parameters = list(parameters)
    decaying = [p for p in parameters if config.decays(p.dim())]
    others = [p for p in parameters if not config.decays(p.dim())]
    if config.weight_decay == 0.0 or not (decaying and others):
        return [{"params": parameters, "weight_decay": config.weight_decay if decaying else 0.0}]
    return [{"params": decaying}, {"params": others, "weight_decay": 0.0}]

"""``fsdp2``: torch's ``fully_shard`` on each decoder layer and on the rest, called directly.

accelerate's FSDP2 does not run on CPU: with ``cpu=True`` it is ignored without a word, without it every rank trains
alone (shared notes "training", section 8). Called directly it is the same code on gloo and on NCCL.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cascade_rl.recipe import OptimizerConfig
from cascade_rl.training.model import decoder_layers
from cascade_rl.training.packing import MicroBatch
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.root import Outputs, Root, Terms
from cascade_rl.training.sharding.base import Piece, Weights
from cascade_rl.training.sharding.gradients import clip_factor
from cascade_rl.training.sharding.replicated import adamw


class FullyShardedRanks:
    """See ``Sharding``. ``offload``: shards, gradients and optimizer wait on the CPU."""

    needs_lockstep = True

    def __init__(self, root: Root, config: OptimizerConfig, ranks: Ranks, *, half: bool, offload: bool) -> None:
        self._ranks, self._clip, self._half = ranks, config.grad_clip, half
        self._root = _sharded(root, ranks, half=half, offload=offload)
        self.optimizer = adamw(
            [p for p in root.model.parameters() if p.requires_grad],
            config,
            on_cpu=offload and ranks.device.type != "cpu",
        )

    def run(self, batch: MicroBatch, terms: Terms | None) -> Outputs:
        outputs = self._root(batch, terms)
        if terms is None:
            self._root.reshard()  # after a forward pass alone the root stays whole, its parameters no shards
        return outputs

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, denominator: float) -> float:
        gradients = [p.grad.to_local() for p in self._root.model.parameters() if p.grad is not None]
        norm = self._norm(gradients) / denominator
        if math.isfinite(norm):
            factor = clip_factor(norm, self._clip) / denominator
            for gradient in gradients:
                gradient.mul_(factor)
            self.optimizer.step()
        self.discard()
        return norm

    def _norm(self, gradients: list[Tensor]) -> float:
        """Of the whole gradient, from each rank's share."""
        squares = torch.zeros((), dtype=torch.float64, device=self._ranks.device)
        held = [gradient for gradient in gradients if gradient.numel()]
        for norm in torch._foreach_norm(held) if held else ():
            squares += norm.to(squares) ** 2
        return float(self._ranks.sum(squares)) ** 0.5

    def discard(self) -> None:
        for parameter in self._root.model.parameters():
            parameter.grad = None

    def weights(self, bucket_mib: int, dtype: torch.dtype | None) -> Weights:
        # A parameter at a time is a collective each, but whole ones outlive the next: engines keep some for a while.
        for name, parameter in self._root.model.named_parameters():
            shard = parameter.detach()
            if dtype is not None:
                shard = shard.to(dtype)
            yield name, shard.to(self._ranks.device).full_tensor()

    def pieces(self) -> Iterator[Piece]:
        for name, parameter in self._root.model.named_parameters():
            if parameter.requires_grad:
                local = parameter.detach().to_local()
                start = _first_row(parameter, self._ranks) * math.prod(parameter.shape[1:])
                if local.numel():
                    yield Piece(name, start, tuple(parameter.shape), local.view(-1), parameter)

    def targets(self) -> Iterator[Piece]:
        return self.pieces()

    def loaded(self) -> None:
        """Shards are the masters themselves."""

    def marks(self) -> tuple[str, str]:
        from torch.distributed.tensor import DTensor

        parameters = list(self._root.model.parameters())
        if not all(isinstance(p, DTensor) for p in parameters):
            return "whole parameters", parameters[0].device.type
        return "fsdp2", parameters[0].to_local().device.type


def _sharded(root: Root, ranks: Ranks, *, half: bool, offload: bool) -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, fully_shard

    keys: dict[str, Any] = {"mesh": init_device_mesh(ranks.device.type, (ranks.world_size,))}
    if offload:
        keys["offload_policy"] = CPUOffloadPolicy(pin_memory=ranks.device.type == "cuda")
    # Layers are gathered as autocast would cast them; inputs stay float32, or else the residual stream would round.
    precision = torch.bfloat16 if half else None
    halved = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in decoder_layers(root.model):
        fully_shard(layer, mp_policy=halved, **keys)
    # Embedding, last norm and head stay float32: the head computes in it. A tied head needs them to be one group.
    sharded = fully_shard(root, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False), **keys)
    for module in sharded.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # sums over ranks, as everywhere ...
            module.set_force_sum_reduction_for_comms(True)  # ... and by the only operation that gloo has for it
    return sharded


def _first_row(parameter: Any, ranks: Ranks) -> int:
    """Index of the first row (dimension 0) of this rank's shard: equal chunks of rows, the last ones short."""
    chunk = -(-parameter.shape[0] // ranks.world_size)
    return min(chunk * ranks.rank, parameter.shape[0])

"""``zero2`` and ``zero3``: DeepSpeed's engine, called directly.

accelerate switches DeepSpeed off on CPU without a word, and reports a world of one process otherwise (shared notes
"training", section 8). DeepSpeed averages over ranks and divides by a loss scale at the step; the step's denominator is
handed to it as just that. Its own scale stays 1 during backward passes, so nothing needs to be known before them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cascade_rl.recipe import OptimizerConfig
from cascade_rl.training.packing import MicroBatch
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.root import Outputs, Root, Terms
from cascade_rl.training.sharding.base import Piece, Weights
from cascade_rl.training.sharding.gradients import buckets
from cascade_rl.training.sharding.replicated import adamw

BUCKET = 50_000_000
"""Elements that are reduced or gathered together, at most: DeepSpeed sets buffers of this size aside."""


class Zero:
    """See ``Sharding``. ``stage`` 2 shares out gradients and optimizer, 3 the weights as well."""

    needs_lockstep = True

    def __init__(
        self,
        root: Root,
        config: OptimizerConfig,
        ranks: Ranks,
        *,
        stage: int,
        offload_optimizer: bool,
        offload_parameters: bool,
    ) -> None:
        deepspeed = _imported(ranks)
        self._root, self._ranks, self._stage = root, ranks, stage
        self._offloads = offload_optimizer
        self._parameters = dict(root.model.named_parameters())
        trained = [p for p in self._parameters.values() if p.requires_grad]
        settings = deepspeed_config(
            stage,
            clip=config.grad_clip,
            elements=sum(p.numel() for p in trained),
            hidden=root.model.config.get_text_config().hidden_size,
            offload_optimizer=offload_optimizer,
            offload_parameters=offload_parameters,
        )
        self.optimizer = adamw(trained, config, on_cpu=offload_optimizer and ranks.device.type != "cpu")
        self._engine, self._zero, _, _ = deepspeed.initialize(
            model=root, optimizer=self.optimizer, config=settings, dist_init_required=False
        )
        self._dirty = False

    def run(self, batch: MicroBatch, terms: Terms | None) -> Outputs:
        return self._engine(batch, terms)

    def backward(self, loss: Tensor) -> None:
        self._dirty = True
        self._engine.backward(loss)

    def step(self, denominator: float) -> float:
        if not self._ranks.any(self._dirty):
            return 0.0
        self._dirty = False
        self._zero.loss_scale = denominator / self._ranks.world_size  # its gradients are means over ranks
        try:
            self._engine.step()
        finally:
            self._zero.loss_scale = 1.0
        return float(self._engine.get_global_grad_norm()) if self._engine.was_step_applied() else math.inf

    def discard(self) -> None:
        self._dirty = False
        self._zero.zero_grad(set_to_none=True)
        if self._offloads:
            self._zero.reset_cpu_buffers()
        if self._stage == 2:
            self._zero.micro_step_id = -1
            for gradients in (self._zero.averaged_gradients, self._zero.all_grad_tensors):
                for group in gradients:
                    gradients[group] = None

    def weights(self, bucket_mib: int, dtype: torch.dtype | None) -> Weights:
        if self._stage == 2:
            for name, parameter in self._parameters.items():
                yield name, parameter.detach()
            return
        from deepspeed.runtime.zero import GatheredParameters

        names = {id(p): name for name, p in self._parameters.items()}
        for group in _by_whole_size(list(self._parameters.values()), bucket_mib << 20):
            with GatheredParameters(group):
                yield from ((names[id(p)], p.data.detach()) for p in group)

    def pieces(self) -> Iterator[Piece]:
        return self._pieces_of_weights() if self._stage == 3 else self._pieces_of_flat_groups()

    def _pieces_of_flat_groups(self) -> Iterator[Piece]:
        """ZeRO-2: in each group of the optimizer all parameters one after another, cut into equal runs."""
        names = {id(p): name for name, p in self._parameters.items()}
        groups = zip(
            self._flat_groups(), self._zero.round_robin_bit16_groups, self._zero.round_robin_bit16_offsets, strict=True
        )
        for flat, parameters, offsets in groups:
            first = self._ranks.rank * flat.numel()
            for parameter, begin in zip(parameters, offsets, strict=True):
                start = max(0, first - begin)
                end = min(parameter.numel(), first + flat.numel() - begin)
                if start < end:
                    offset = begin + start - first
                    weight = flat.detach()[offset : offset + end - start]
                    yield Piece(names[id(parameter)], start, tuple(parameter.shape), weight, flat, offset)

    def _pieces_of_weights(self) -> Iterator[Piece]:
        """ZeRO-3: each parameter cut into equal runs, which lie in flat groups."""
        for name, parameter in self._parameters.items():
            if not parameter.requires_grad:
                continue
            group, offset, count = self._zero.grad_position[self._zero.get_param_id(parameter)]
            start = self._ranks.rank * count
            count = min(count, parameter.ds_numel - start)
            if count > 0:
                flat = self._flat_groups()[group]
                weight = flat.detach()[offset : offset + count]
                yield Piece(name, start, tuple(parameter.ds_shape), weight, flat, offset)

    def targets(self) -> Iterator[Piece]:
        return self.pieces()

    def loaded(self) -> None:
        if self._stage == 2:
            self._zero.update_lp_params()
            return
        self._zero._partition_all_parameters()  # what stays gathered between passes would keep its old values
        for group in range(len(self._zero.fp16_groups)):
            self._zero._reassign_or_swap_out_partitioned_parameters(group)
        if self._zero.persistent_parameters:
            self._zero.persistent_parameters[0].all_gather(self._zero.persistent_parameters)

    def marks(self) -> tuple[str, str]:
        stage = self._engine.zero_optimization_stage()
        partitioned = all(hasattr(p, "ds_id") for p in self._parameters.values())
        if partitioned != (self._stage == 3) or stage != self._stage:
            return f"stage {stage} with {'shards of' if partitioned else 'whole'} parameters", "cpu"
        return f"zero{stage}", self._flat_groups()[0].device.type

    def _flat_groups(self) -> list[Tensor]:
        """The float32 weights that this rank's optimizer works on."""
        zero = self._zero
        return zero.single_partition_of_fp32_groups if self._stage == 2 else zero.fp32_partitioned_groups_flat


def deepspeed_config(
    stage: int, *, clip: float, elements: int, hidden: int, offload_optimizer: bool, offload_parameters: bool
) -> dict[str, Any]:
    """What DeepSpeed is told, for a model of ``elements`` trained weights. float32 weights: autocast does the rest."""
    bucket = min(BUCKET, elements)
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        "overlap_comm": False,
    }
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": bucket,
            "stage3_param_persistence_threshold": 10 * hidden,  # norms and biases stay whole
        }
    if offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": 1,  # of no meaning here: rows are cut by tokens
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # step() is where a step ends, after any number of rows
        "gradient_clipping": clip,
        "zero_allow_untested_optimizer": True,  # torch's AdamW: nothing to compile
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
        "steps_per_print": 1 << 30,
    }


def _imported(ranks: Ranks) -> Any:
    """DeepSpeed for this device, without its native operations on CPU: they would need a compiler, and gloo does."""
    if ranks.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")  # it insists on one
    import deepspeed

    if ranks.device.type == "cpu":
        vars(deepspeed.ops).setdefault("__compatible_ops__", {})
    deepspeed.init_distributed(
        dist_backend="gloo" if ranks.device.type == "cpu" else "nccl", dist_init_required=False, verbose=False
    )
    return deepspeed


def _by_whole_size(parameters: list[Any], limit: int) -> Iterator[list[Any]]:
    """``buckets``, counting what partitioned parameters have when they are whole."""
    whole = [torch.empty(p.ds_shape, dtype=p.dtype, device="meta") for p in parameters]
    place = {id(tensor): p for tensor, p in zip(whole, parameters, strict=True)}
    return ([place[id(tensor)] for tensor in group] for group in buckets(whole, limit))

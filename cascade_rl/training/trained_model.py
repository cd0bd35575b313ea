"""A model in training: weights, optimizer and the gradient of one step, spread over ranks. What its head computes is
left to the classes for language models (``policy.Policy``) and reward models (``reward_model.TrainedRewardModel``).

Gradients of a step accumulate over any number of micro-batches per rank, unnormalised; ``step`` sums them over ranks
and divides by the step's denominator, once. So neither the cut into rows nor the number of ranks changes the update
(up to float rounding), and the denominator need not be known when the first backward pass runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade_rl.recipe import LoraConfig, OptimizerConfig, ShardingConfig
from cascade_rl.training import portable
from cascade_rl.training.attention import SEGMENT_ATTENTION
from cascade_rl.training.balance import TokenCost, balanced_rows
from cascade_rl.training.host_memory import HostMemory, bytes_of
from cascade_rl.training.lora import adapter_weights, for_checkpoint, lost_in_rounding, wrap_model
from cascade_rl.training.packing import MicroBatch, TrainingSequence, pack_row
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.root import Root
from cascade_rl.training.schedule import learning_rate_factor
from cascade_rl.training.sharding.choice import make_sharding
from cascade_rl.training.shared_prompts import shared_row
from cascade_rl.training.state import Part
from cascade_rl.training.ulysses import Together, share_heads
from cascade_rl.types import CascadeError

DDP = ShardingConfig(strategy="ddp")
STATE = "policy-{rank:05d}-of-{world:05d}.pt"
"""File of one rank in a resumable state."""


class NonFinite(Exception):
    """A gradient that is not a finite number; the weights are as before, the gradient is gone."""


class TrainedModel:
    """A transformers model with AdamW on one device per rank."""

    unit = 1
    """Consecutive sequences that must lie in one row."""

    def __init__(
        self,
        model: Any,
        make_root: Callable[[Together | None], Root],
        config: OptimizerConfig,
        *,
        ranks: Ranks,
        half: bool,
        total_steps: int,
        gradient_checkpointing: bool,
        sharding: ShardingConfig = DDP,
        lora: LoraConfig | None = None,
        seed: int = 0,
    ) -> None:
        """``make_root``: what sharding hooks onto, made once ``model`` is complete; it is given the ranks that share
        this rank's rows, if any do. ``half``: passes run under bfloat16 autocast. ``sharding``: as resolved against the
        launcher (``Launch.resolve``). ``lora``: train adapters alone, drawn from ``seed``. A collective call."""
        self.ranks, self.lora, self.half, self.model = ranks, lora, half, model
        if lora is not None:
            wrap_model(model, lora, seed)
        if gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        self._together = sharding.sequence_parallel
        together = None
        if self._together > 1:
            together = Together.of(ranks, self._together)
            share_heads(model, together)
        self.cost = TokenCost.of(model)
        self._shapes = [(name, p.shape) for name, p in model.named_parameters() if p.requires_grad]
        self.trained_weights = sum(shape.numel() for _, shape in self._shapes)
        self.sharding = make_sharding(make_root(together), config, ranks, sharding, half=half)
        self._config, self._total_steps = config, total_steps
        self.begin_step(0)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW over what this rank keeps."""
        return self.sharding.optimizer

    @property
    def needs_lockstep(self) -> bool:
        """Passes are collective: every rank must make the same number of them (``balance.balanced_rows``)."""
        return self.sharding.needs_lockstep or self.shares_rows

    @property
    def shares_rows(self) -> bool:
        """Whether several ranks share the tokens of each row (Ulysses)."""
        return self._together > 1

    @property
    def learning_rate(self) -> float:
        """Rate of the next ``step``."""
        return float(self.optimizer.param_groups[0]["lr"])

    def begin_step(self, step: int) -> None:
        """Set the learning rate of training step ``step`` (0-based), for all updates that are made in it.

        The rate follows from the number of the step alone: not from how many updates a batch is cut into, nor from
        updates that were skipped, nor from where a stage was resumed or its optimizer comes from.
        """
        rate = self._config.learning_rate * learning_rate_factor(step, self._config, self._total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def rows(self, sequences: Sequence[TrainingSequence], budget: int) -> list[MicroBatch]:
        """This rank's share of what all ranks hand in, as rows of about ``budget`` tokens each, equally many on every
        rank. A collective call (see ``balanced_rows``)."""
        return balanced_rows(
            self.ranks,
            sequences,
            self.cost,
            budget,
            unit=self.unit,
            together=self._together,
            share_prompts=self._shares_prompts,
            make=self.row,
        )

    def row(self, sequences: Sequence[TrainingSequence]) -> MicroBatch:
        """One row of ``sequences``, in their order."""
        return shared_row(sequences) if self._shares_prompts else pack_row(sequences)

    @property
    def _shares_prompts(self) -> bool:
        return bool(self.model.config._attn_implementation == SEGMENT_ATTENTION)

    def step(self, denominator: float = 1.0) -> float:
        """Sum gradients over ranks, divide by ``denominator``, clip, update. Returns the norm before clipping.

        Raises NonFinite when the gradient is not finite, on every rank alike. A collective call.
        """
        norm = self.sharding.step(denominator)
        if not math.isfinite(norm):
            raise NonFinite(f"the gradient is not finite (norm {norm})")
        return norm

    def discard(self) -> None:
        """Forget the gradient accumulated so far."""
        self.sharding.discard()

    def whole_state_dict(self, dtype: torch.dtype) -> dict[str, Tensor] | None:
        """All weights in ``dtype`` on the CPU of the main rank, as a checkpoint has them, adapters merged in; None on
        others. A collective call; nowhere else is the whole model."""
        return self._on_main(for_checkpoint(self.sharding.weights(1024, None), self.lora), dtype)

    def adapter_state_dict(self) -> dict[str, Tensor] | None:
        """The adapters alone in float32, as a peft checkpoint has them, on the main rank. A collective call."""
        return self._on_main(adapter_weights(self.sharding.weights(1024, None)), torch.float32)

    def _on_main(self, weights: Iterator[tuple[str, Tensor]], dtype: torch.dtype) -> dict[str, Tensor] | None:
        whole: dict[str, Tensor] = {}
        for name, tensor in weights:
            if self.ranks.is_main:
                whole[name] = tensor.to("cpu", dtype, copy=True)
        return whole if self.ranks.is_main else None

    def lost_in_rounding(self, dtype: torch.dtype) -> float:
        """What a checkpoint in ``dtype`` loses of what was learned (``lora.lost_in_rounding``). A collective call."""
        assert self.lora is not None
        return lost_in_rounding(self.sharding.weights(1024, None), self.lora.scale, dtype)

    def part(self, memory: HostMemory | None = None) -> Part:
        """A function that writes this rank's part of a resumable state into a folder: as it is now, from a copy in
        ``memory``, whatever is trained meanwhile; or, without ``memory``, as it is when that function is called. Every
        rank calls it."""
        entries = self._entries()
        if memory is not None:
            entries = memory.copy(entries)
        name = STATE.format(rank=self.ranks.rank, world=self.ranks.world_size)
        return lambda folder: {name: portable.write(folder / name, entries)} if entries else {}

    @property
    def state_bytes(self) -> int:
        """What a copy of this rank's part takes: 12 bytes per trained parameter of its share."""
        return bytes_of(self._entries())

    def _entries(self) -> dict[str, portable.Entry]:
        return portable.entries_of(self.sharding.pieces(), self.optimizer)

    def save(self, folder: Path) -> list[Path]:
        """Write this rank's part of a resumable state into ``folder``; returns its files. Every rank calls it.

        Raises OSError when the disk takes no more.
        """
        return [folder / name for name in self.part()(folder)]

    def load(self, folder: Path) -> None:
        """Go on from the state in ``folder``, written by any number of ranks under any strategy. The learning rate is
        that of ``begin_step``. A collective call.

        Raises CascadeError when it is the state of another model, or files of it are missing.
        """
        paths = sorted(folder.glob("policy-*.pt"))
        if not paths:
            raise CascadeError(f"{folder} holds no state of a policy")
        portable.read(paths, self.sharding.targets(), self.optimizer, weights=True)
        self.sharding.loaded()

    def save_optimizer(self, path: Path | None) -> None:
        """Write the moments into ``path`` (None on other ranks than the main one), for a stage that inherits them. A
        collective call."""
        moments = dict(portable.whole_moments(self._shapes, self.sharding.pieces(), self.optimizer, self.ranks))
        if path is not None:
            torch.save(moments, path)

    def inherit_optimizer(self, path: Path) -> None:
        """Take over a parent stage's moments, with this stage's own rates and schedule.

        Raises CascadeError when they are those of another model.
        """
        portable.read([path], self.sharding.targets(), self.optimizer, weights=False)

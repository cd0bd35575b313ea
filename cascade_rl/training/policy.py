"""The model being trained: weights, optimizer, and the gradient of one step, spread over ranks.

Gradients of a step accumulate over any number of micro-batches per rank, unnormalised; ``step`` sums them over ranks
and divides by the step's denominator, once. So neither the cut into rows nor the number of ranks changes the update
(up to float rounding), and the denominator need not be known when the first backward pass runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cascade_rl.algorithms.logprobs import Terms, TokenScores
from cascade_rl.recipe import LoraConfig, OptimizerConfig, ShardingConfig
from cascade_rl.training import portable
from cascade_rl.training.attention import SEGMENT_ATTENTION
from cascade_rl.training.balance import TokenCost, balanced_rows
from cascade_rl.training.host_memory import HostMemory, bytes_of
from cascade_rl.training.lora import adapter_weights, for_checkpoint, for_engine, lost_in_rounding, wrap_model
from cascade_rl.training.model import PackedModel, load_model, scores_of
from cascade_rl.training.packing import MicroBatch, TrainingSequence, pack_row
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.schedule import learning_rate_factor
from cascade_rl.training.sharding.choice import make_sharding
from cascade_rl.training.sharing import shared_row
from cascade_rl.training.state import Part
from cascade_rl.training.ulysses import Together, share_heads
from cascade_rl.types import CascadeError

__all__ = ["NonFinite", "Policy", "load_model"]

DDP = ShardingConfig(strategy="ddp")
STATE = "policy-{rank:05d}-of-{world:05d}.pt"
"""File of one rank in a resumable state."""


class NonFinite(Exception):
    """A gradient that is not a finite number; the weights are as before, the gradient is gone."""


class Policy:
    """A causal LM with AdamW on one device per rank."""

    def __init__(
        self,
        checkpoint: Path,
        config: OptimizerConfig,
        *,
        ranks: Ranks,
        dtype: str,
        total_steps: int,
        gradient_checkpointing: bool,
        chunk_tokens: int | None,
        sharding: ShardingConfig = DDP,
        lora: LoraConfig | None = None,
        seed: int = 0,
    ) -> None:
        """``sharding``: as resolved against the launcher (``Launch.resolve``). ``lora``: train adapters alone, drawn
        from ``seed``. A collective call."""
        self.ranks, self.lora = ranks, lora
        self.half = dtype == "bfloat16"
        self.model = load_model(checkpoint, ranks.device, keep_on_cpu=sharding.strategy != "ddp")
        if lora is not None:
            wrap_model(self.model, lora, seed)
        if gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.model.train()
        self._together = sharding.sequence_parallel
        if self._together > 1:
            share_heads(self.model, Together.of(ranks, self._together))
        self.cost = TokenCost.of(self.model)
        self._shapes = [(name, p.shape) for name, p in self.model.named_parameters() if p.requires_grad]
        self.trained_weights = sum(shape.numel() for _, shape in self._shapes)
        root = PackedModel(
            self.model,
            half=self.half,
            chunk_tokens=chunk_tokens,
            offload_activations=sharding.offload_activations,
        )
        self.sharding = make_sharding(root, config, ranks, sharding, half=self.half)
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
            together=self._together,
            share_prompts=self._shares_prompts,
        )

    def row(self, sequences: Sequence[TrainingSequence]) -> MicroBatch:
        """One row of ``sequences``, in their order."""
        return shared_row(sequences) if self._shares_prompts else pack_row(sequences)

    @property
    def _shares_prompts(self) -> bool:
        return bool(self.model.config._attn_implementation == SEGMENT_ATTENTION)

    @torch.no_grad()
    def score(self, batch: MicroBatch) -> TokenScores:
        """Scores of the trained tokens of one packed row, each [N], without gradient."""
        return scores_of(self.sharding.run(batch.to(self.ranks.device), None))

    def backward(self, batch: MicroBatch, terms: Terms) -> tuple[float, TokenScores]:
        """One forward and one backward pass over a packed row: the gradient of the sum of ``terms`` over its trained
        tokens is added to what this step has so far. Returns (that sum, scores of the tokens)."""
        outputs = self.sharding.run(batch.to(self.ranks.device), terms)
        loss = outputs[0]
        assert loss is not None
        self.sharding.backward(loss)
        return float(loss.detach()), scores_of(outputs)

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

    def named_weights(self, bucket_mib: int = 1024) -> Iterator[tuple[str, Tensor]]:
        """Whole weights by checkpoint name, in layer order, for the engine: adapters merged in, or adapters alone.
        Sharded ones are gathered about ``bucket_mib`` at a time, never the whole model. A collective call: every rank
        draws all of them, whether it has a use for them or not.

        A tied head is sent as well: engines keep their own copy, and one left out keeps its old values without a
        word (log-probs then differ by 0.9).
        """
        half = torch.bfloat16 if self.half else None
        # What is merged is rounded after that, and not before.
        weights = for_engine(self._weights(bucket_mib, half if self.lora is None else None), self.lora)
        return ((name, tensor if half is None else tensor.to(half)) for name, tensor in weights)

    def _weights(self, bucket_mib: int, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
        tied = self._tied_name()
        for name, tensor in self.sharding.weights(bucket_mib, dtype):
            yield name, tensor
            if name == tied:
                yield "lm_head.weight", tensor

    def _tied_name(self) -> str | None:
        """Checkpoint name of the embedding that is the head as well."""
        if not self.model.config.tie_word_embeddings:
            return None
        embedding = self.model.get_input_embeddings().weight
        return next(name for name, p in self.model.named_parameters() if p is embedding)

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

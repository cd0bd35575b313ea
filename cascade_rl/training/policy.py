"""The language model being trained. What it shares with other models in training is in ``trained_model``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from cascade_rl.algorithms.logprobs import Terms, TokenScores
from cascade_rl.recipe import LoraConfig, OptimizerConfig, ShardingConfig
from cascade_rl.training.lora import for_engine
from cascade_rl.training.model import PackedModel, load_model, scores_of
from cascade_rl.training.packing import MicroBatch
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.trained_model import DDP, NonFinite, TrainedModel

__all__ = ["NonFinite", "Policy", "load_model"]


class Policy(TrainedModel):
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
        model = load_model(checkpoint, ranks.device, keep_on_cpu=sharding.strategy != "ddp")
        half = dtype == "bfloat16"
        super().__init__(
            model,
            lambda _: PackedModel(
                model, half=half, chunk_tokens=chunk_tokens, offload_activations=sharding.offload_activations
            ),
            config,
            ranks=ranks,
            half=half,
            total_steps=total_steps,
            gradient_checkpointing=gradient_checkpointing,
            sharding=sharding,
            lora=lora,
            seed=seed,
        )

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

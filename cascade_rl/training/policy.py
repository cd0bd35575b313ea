"""The model being trained: weights, optimizer, and the gradient of one step, replicated over ranks.

Gradients of a step accumulate over any number of micro-batches per rank, unnormalised; ``step`` sums them over ranks
and divides by the step's denominator, once. So neither the cut into rows nor the number of ranks changes the update
(up to float rounding), and the denominator need not be known when the first backward pass runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade_rl.algorithms.logprobs import Terms, TokenScores, chunked_logprobs, fused_token_loss
from cascade_rl.recipe import OptimizerConfig
from cascade_rl.training.attention import choose_attention
from cascade_rl.training.fused_layers import fuse_layers
from cascade_rl.training.packing import MicroBatch
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.schedule import learning_rate_factor
from cascade_rl.types import CascadeError


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
    ) -> None:
        self.model = load_model(checkpoint, ranks.device)
        if gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.model.train()
        self.ranks = ranks
        self.half = dtype == "bfloat16"
        self._clip = config.grad_clip
        self._chunk_tokens = chunk_tokens
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, config, total_steps)
        )

    @property
    def learning_rate(self) -> float:
        """Rate of the next ``step``."""
        return self.scheduler.get_last_lr()[0]

    @torch.no_grad()
    def score(self, batch: MicroBatch, temperature: float) -> TokenScores:
        """Scores of the trained tokens of one packed row, each [N], without gradient."""
        batch = batch.to(self.ranks.device)
        hidden, head = self._hidden(batch)
        return chunked_logprobs(hidden, head, batch.targets, temperature=temperature, chunk_tokens=self._chunk_tokens)

    def backward(self, batch: MicroBatch, temperature: float, terms: Terms) -> tuple[float, TokenScores]:
        """One forward and one backward pass over a packed row: the gradient of the sum of ``terms`` over its trained
        tokens is added to what this step has so far. Returns (that sum, scores of the tokens)."""
        batch = batch.to(self.ranks.device)
        hidden, head = self._hidden(batch)
        loss, scores = fused_token_loss(
            hidden, head, batch.targets, terms, temperature=temperature, chunk_tokens=self._chunk_tokens
        )
        loss.backward()
        return float(loss.detach()), scores

    def _hidden(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Hidden states [N, H] of the positions that predict trained tokens, and the head's weight [V, H]."""
        precision = torch.autocast(self.ranks.device.type, torch.bfloat16) if self.half else contextlib.nullcontext()
        with precision:
            hidden = self.model.base_model(
                input_ids=batch.input_ids,
                position_ids=batch.position_ids,
                use_cache=False,
                cu_seq_lens_q=batch.cu_seq_lens,
                cu_seq_lens_k=batch.cu_seq_lens,
                max_length_q=batch.max_length,
                max_length_k=batch.max_length,
            ).last_hidden_state[0]  # [T, H]
        head = self.model.get_output_embeddings().weight
        # Factors of the head's products are halves under `half`, summed in float32.
        return hidden[batch.predictors].to(torch.bfloat16 if self.half else head.dtype), head

    def step(self, denominator: float = 1.0) -> float:
        """Sum gradients over ranks, divide by ``denominator``, clip, update. Returns the norm before clipping.

        Raises NonFinite when the gradient is not finite, on every rank alike.
        """
        self._sum_gradients()
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(denominator)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clip))
        if norm != norm or norm == float("inf"):
            self.discard()
            raise NonFinite(f"the gradient is not finite (norm {norm})")
        self.optimizer.step()
        self.scheduler.step()
        self.discard()
        return norm

    def discard(self) -> None:
        """Forget the gradient accumulated so far."""
        self.optimizer.zero_grad(set_to_none=True)

    def _sum_gradients(self) -> None:
        """One flat all-reduce instead of one per parameter; ranks without rollouts contribute zeros.

        Where no rank has a gradient there is none afterwards, and the optimizer leaves the weights alone: zeros would
        let its momentum move them, on several ranks but not on one.
        """
        if self.ranks.world_size == 1:
            return
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if not self.ranks.any(any(p.grad is not None for p in parameters)):
            return
        flat = torch.cat(
            [(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1).float() for p in parameters]
        )
        self.ranks.sum(flat)
        start = 0
        for p in parameters:
            p.grad = flat[start : start + p.numel()].view_as(p).to(p.dtype)
            start += p.numel()

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Weights by checkpoint name, in layer order, for the engine.

        A tied head is sent as well: engines keep their own copy, and one left out keeps its old values without a
        word (log-probs then differ by 0.9).
        """
        for name, parameter in self.model.named_parameters():
            yield name, parameter.detach()
        if self.model.config.tie_word_embeddings:
            yield "lm_head.weight", self.model.get_output_embeddings().weight.detach()

    def state_dict(self) -> dict[str, Any]:
        """All that ``load_state_dict`` needs to go on bit for bit."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])

    def inherit_optimizer(self, state: dict[str, Any]) -> None:
        """Take over a parent stage's moments, with this stage's own rates and a schedule from step 0."""
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def load_model(checkpoint: Path, device: torch.device):
    """The checkpoint as a float32 transformers model (master weights), ready for packed rows.

    Raises CascadeError when transformers cannot read it.
    """
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            checkpoint,
            dtype=torch.float32,
            attn_implementation=choose_attention(device),
            output_loading_info=True,
        )
    except Exception as error:
        raise CascadeError(f"checkpoint {checkpoint} does not load in transformers: {error}") from error
    missing = report.get("missing_keys") or ()
    if missing:
        raise CascadeError(f"checkpoint {checkpoint} lacks weights: {', '.join(sorted(missing)[:5])}")
    fuse_layers(model, device)
    return model.to(device)

"""The model being trained: weights, optimizer, and the gradient of one step, replicated over ranks.

Gradients of a step accumulate over any number of micro-batches per rank, unnormalised; ``step`` sums them over ranks
and divides by the step's denominator, once. So neither the cut into rows nor the number of ranks changes the update
(up to float rounding), and the denominator need not be known when the first backward pass runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade_rl.algorithms.logprobs import Terms, TokenScores, chunked_logprobs, fused_token_loss
from cascade_rl.recipe import LoraConfig, OptimizerConfig
from cascade_rl.training.attention import choose_attention
from cascade_rl.training.forward import hidden_and_head
from cascade_rl.training.fused_layers import fuse_layers
from cascade_rl.training.lora import adapter_weights, for_checkpoint, for_engine, lost_in_rounding, wrap_model
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
        lora: LoraConfig | None = None,
        seed: int = 0,
    ) -> None:
        """``lora``: train adapters alone, drawn from ``seed``."""
        self.lora = lora
        self.model = load_model(checkpoint, ranks.device)
        if lora is not None:
            wrap_model(self.model, lora, seed)
        if gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.model.train()
        self.ranks = ranks
        self.half = dtype == "bfloat16"
        self._clip = config.grad_clip
        self._chunk_tokens = chunk_tokens
        self.optimizer = torch.optim.AdamW(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
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
        hidden, head = hidden_and_head(self.model, batch, half=self.half)
        return chunked_logprobs(hidden, head, batch.targets, temperature=temperature, chunk_tokens=self._chunk_tokens)

    def backward(self, batch: MicroBatch, temperature: float, terms: Terms) -> tuple[float, TokenScores]:
        """One forward and one backward pass over a packed row: the gradient of the sum of ``terms`` over its trained
        tokens is added to what this step has so far. Returns (that sum, scores of the tokens)."""
        batch = batch.to(self.ranks.device)
        hidden, head = hidden_and_head(self.model, batch, half=self.half)
        loss, scores = fused_token_loss(
            hidden, head, batch.targets, terms, temperature=temperature, chunk_tokens=self._chunk_tokens
        )
        loss.backward()
        return float(loss.detach()), scores

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
        """Weights by checkpoint name, in layer order, for the engine: adapters merged in, or adapters alone.

        A tied head is sent as well: engines keep their own copy, and one left out keeps its old values without a
        word (log-probs then differ by 0.9).
        """
        return for_engine(self._weights(), self.lora)

    def whole_state_dict(self) -> dict[str, Tensor]:
        """All weights as a checkpoint has them, adapters merged in; a tied head once."""
        return dict(for_checkpoint(((name, p.detach()) for name, p in self.model.named_parameters()), self.lora))

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """The adapters alone, as a peft checkpoint has them, on the CPU."""
        parameters = ((name, p.detach()) for name, p in self.model.named_parameters())
        return {name: tensor.to("cpu", copy=True) for name, tensor in adapter_weights(parameters)}

    def lost_in_rounding(self, dtype: torch.dtype) -> float:
        """What a checkpoint in ``dtype`` loses of what adapters learned (``lora.lost_in_rounding``)."""
        assert self.lora is not None
        return lost_in_rounding(((n, p.detach()) for n, p in self.model.named_parameters()), self.lora.scale, dtype)

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.model.named_parameters():
            yield name, parameter.detach()
        if self.model.config.tie_word_embeddings:
            yield "lm_head.weight", self.model.get_output_embeddings().weight.detach()

    def state_dict(self) -> dict[str, Any]:
        """All that ``load_state_dict`` needs to go on bit for bit: of frozen weights nothing."""
        return {
            "model": {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad},
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        if set(state["model"]) != trained:
            different = sorted(trained ^ set(state["model"]))
            raise CascadeError(f"the state is that of another model: {len(different)} weights, as {different[0]}")
        self.model.load_state_dict(state["model"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])

    def inherit_optimizer(self, state: dict[str, Any]) -> None:
        """Take over a parent stage's moments, with this stage's own rates and a schedule from step 0."""
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def load_model(checkpoint: Path, device: torch.device, *, keep_on_cpu: bool = False) -> Any:
    """The checkpoint as a float32 transformers model (master weights), ready for packed rows on ``device``.

    With ``keep_on_cpu`` its weights wait there. Raises CascadeError when transformers cannot read it.
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
    return model if keep_on_cpu else model.to(device)

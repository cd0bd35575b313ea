"""The causal LM of a policy as one module, called with a packed row (``root.Root``). Its head never gives logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade_rl.algorithms.logprobs import Terms, TokenScores, chunked_logprobs, fused_token_loss
from cascade_rl.processes import collector_paused
from cascade_rl.training.attention import choose_attention
from cascade_rl.training.forward import hidden_and_head
from cascade_rl.training.fused_layers import fuse_layers
from cascade_rl.training.generation import clean_generation, inherited_generation
from cascade_rl.training.packing import MicroBatch
from cascade_rl.training.root import Outputs, Root
from cascade_rl.types import CascadeError


class FusedHead(torch.nn.Linear):
    """A language-model head that goes from hidden states to scores and loss, chunk by chunk."""

    def forward(  # type: ignore[override]
        self,
        hidden: Tensor,
        targets: Tensor,
        kept: Tensor | None,
        terms: Terms | None,
        temperature: float,
        chunk_tokens: int | None,
    ) -> Outputs:
        """hidden: [N, H]   targets: [N]   kept: [N, K] or None. Without ``terms`` only scores are taken."""
        keys: dict[str, Any] = {"temperature": temperature, "chunk_tokens": chunk_tokens, "kept": kept}
        if terms is None:
            loss, scores = None, chunked_logprobs(hidden, self.weight, targets, **keys)
        else:
            loss, scores = fused_token_loss(hidden, self.weight, targets, terms, **keys)
        return loss, scores.logprobs, scores.entropy, scores.raw_logprobs, scores.is_top


class PackedModel(Root):
    """``model`` as a function of a packed row: (loss | None, log-probs [N], entropy [N], raw log-probs [N], is top
    [N])."""

    def __init__(self, model: Any, *, half: bool, chunk_tokens: int | None, offload_activations: bool = False) -> None:
        super().__init__(model, half=half, offload_activations=offload_activations)
        self._chunk_tokens = chunk_tokens
        head = model.get_output_embeddings()
        if type(head) is not torch.nn.Linear or head.bias is not None:
            raise CascadeError(
                f"{type(model).__name__} ends in {type(head).__name__}; a policy needs a plain linear head, no bias"
            )
        head.__class__ = FusedHead  # parameters and names stay

    def forward(self, batch: MicroBatch, terms: Terms | None = None) -> Outputs:
        with self._offloading(batch, terms):
            hidden, _ = hidden_and_head(self.model, batch, half=self._half)
        return self.model.get_output_embeddings()(
            hidden, batch.targets, batch.kept, terms, batch.temperature, self._chunk_tokens
        )


def scores_of(outputs: Outputs) -> TokenScores:
    logprobs, entropy, raw, is_top = outputs[1:]
    return TokenScores(logprobs, entropy, raw, is_top)


def decoder_layers(model: Any) -> list[torch.nn.Module]:
    """The transformer blocks in order, by what transformers itself says must not be split over devices.

    Raises CascadeError where it says nothing.
    """
    names = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise CascadeError(f"{type(model).__name__} does not say what its layers are; use strategy ddp")
    return layers


def load_model(checkpoint: Path, device: torch.device, *, keep_on_cpu: bool = False) -> Any:
    """The checkpoint as a float32 transformers model (master weights), ready for packed rows on ``device``.

    With ``keep_on_cpu`` its weights wait there for whoever cuts them into shards. Raises CascadeError when transformers
    cannot read it.
    """
    with collector_paused():
        from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            checkpoint,
            dtype=torch.float32,
            attn_implementation=choose_attention(device),
            output_loading_info=True,
            generation_config=inherited_generation(checkpoint),
        )
    except Exception as error:
        raise CascadeError(f"checkpoint {checkpoint} does not load in transformers: {error}") from error
    missing = report.get("missing_keys") or ()
    if missing:
        raise CascadeError(f"checkpoint {checkpoint} lacks weights: {', '.join(sorted(missing)[:5])}")
    clean_generation(model)
    fuse_layers(model, device)
    return model if keep_on_cpu else model.to(device)

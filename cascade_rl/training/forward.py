"""One forward pass over a packed row, for policies as for frozen models: to hidden states, never to logits."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from cascade_rl.training.attention import SEGMENT_ATTENTION
from cascade_rl.training.packing import MicroBatch


def hidden_states(model: Any, batch: MicroBatch, *, half: bool) -> Tensor:
    """Hidden states [N, H] at the row's ``predictors``. ``half``: under autocast to bfloat16."""
    keys: dict[str, Any] = {}
    if batch.prefixes:
        assert model.config._attn_implementation == SEGMENT_ATTENTION, "other kinds would look past shared prompts"
        keys["prefixes"] = batch.prefixes
    precision = torch.autocast(batch.input_ids.device.type, torch.bfloat16) if half else contextlib.nullcontext()
    with precision:
        hidden = model.base_model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            cu_seq_lens_q=batch.cu_seq_lens,
            cu_seq_lens_k=batch.cu_seq_lens,
            max_length_q=batch.max_length,
            max_length_k=batch.max_length,
            **keys,
        ).last_hidden_state[0]  # [T, H]
    # Not hidden[predictors]: rollouts that share a prompt share the predictor of their first token, and the gradient of
    # indexing adds up repeated positions in whatever order the threads of a CPU come to them.
    return torch.nn.functional.embedding(batch.predictors, hidden)


def hidden_and_head(model: Any, batch: MicroBatch, *, half: bool) -> tuple[Tensor, Tensor]:
    """Hidden states [N, H] of the positions that predict the row's trained tokens, and the head's weight [V, H].

    ``half``: under autocast to bfloat16, the factors of the head's products too, which are summed in float32.
    """
    hidden, head = hidden_states(model, batch, half=half), model.get_output_embeddings().weight
    return hidden.to(torch.bfloat16 if half else head.dtype), head

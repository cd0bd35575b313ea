"""Attention over packed rows: several sequences one after another, none sees its neighbours.

FlashAttention 3 takes the borders as ``cu_seq_lens``. Elsewhere torch's attention runs once per segment, while the
linear layers still see the whole row. Measured on CPU, this is 1.7 to 2.3 times faster than one block mask over the
row, and 3.1 times faster than padded micro-batches (shared notes "training", section 3.2); on an H200 a whole pass is
1.06 (rollouts of 4K tokens) to 1.28 times (16K) faster than with torch's own variable-length kernel, since for each
segment torch can choose cuDNN's (docs/benchmarks.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

SEGMENT_ATTENTION = "cascade_segments"
MASK_CELLS = 1 << 22
"""Queries times keys of the largest mask that is made on a CPU (4 MiB)."""


def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    sliding_window: int | None = None,
    prefixes: Sequence[tuple[int, int]] = (),
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each segment of a row (transformers' attention interface).

    query: [1, heads, T, head_dim]   key, value: [1, kv_heads, T, head_dim]
    cu_seq_lens_q: [segments + 1] int32 borders, 0 first and T last; None is one segment.
    prefixes: of each segment, the part of the row [start, end) that it sees before its own tokens, the beginning of
    another segment; () for none at all.
    Returns ([1, T, heads, head_dim], None). Raises ValueError for what it cannot do exactly (padding masks,
    sliding windows shorter than a segment) instead of computing something else.
    """
    if attention_mask is not None:
        raise ValueError("packed rows carry no attention mask; pass cu_seq_lens_q")
    borders = [0, query.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.tolist()
    before = prefixes or [(0, 0)] * (len(borders) - 1)
    if sliding_window is not None and max(_seen(borders, before)) > sliding_window:
        raise ValueError(f"a segment is longer than the model's sliding window of {sliding_window} tokens")
    settings = {"dropout_p": dropout, "scale": scaling, "enable_gqa": key.shape[1] != query.shape[1]}
    split = (_split(tensor, borders, before) for tensor in (query, key, value))
    parts = [_attend(q, k, v, **settings) for q, k, v in zip(*split, strict=True)]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


Piece = tuple[Tensor | None, Tensor]
"""What a segment sees before its own tokens, or None; and its own tokens. [1, heads, tokens, head_dim]"""


def _attend(query: Piece, key: Piece, value: Piece, **settings: Any) -> Tensor:
    """Causal attention of a segment's own tokens to its prefix and itself: [1, heads, tokens, head_dim].

    With a prefix its queries come along, and their results are dropped: plain causal attention is what every kernel is
    fastest at on a GPU, and attention to a prompt is little beside the layers. On a CPU a mask is 1.4 times as fast,
    with the same bits; a long segment's would take too much memory.
    """
    before, own = query
    if before is None:
        return scaled_dot_product_attention(own, key[1], value[1], is_causal=True, **settings)
    prefix, length = before.shape[2], own.shape[2]
    keys, values = _joined(key), _joined(value)
    if own.device.type == "cpu" and length * (prefix + length) <= MASK_CELLS:
        mask = torch.ones(length, prefix + length, dtype=torch.bool).tril(prefix)
        return scaled_dot_product_attention(own, keys, values, attn_mask=mask, **settings)
    return scaled_dot_product_attention(_joined(query), keys, values, is_causal=True, **settings)[:, :, prefix:]


def _joined(piece: Piece) -> Tensor:
    before, own = piece
    return own if before is None else torch.cat([before, own], dim=2)


def _seen(borders: Sequence[int], prefixes: Sequence[tuple[int, int]]) -> list[int]:
    """Tokens of each segment, those of its prefix included."""
    return [end - start + b - a for (start, end), (a, b) in zip(itertools.pairwise(borders), prefixes, strict=True)]


def _split(tensor: Tensor, borders: Sequence[int], prefixes: Sequence[tuple[int, int]]) -> list[Piece]:
    """Prefix and own tokens of each segment. The row is split once: the gradient of a slice would be a row of zeros for
    each segment."""
    segments = tensor.split([b - a for a, b in itertools.pairwise(borders)], dim=2)
    beginning = dict(zip(borders, segments, strict=False))
    return [
        (None if first == last else beginning[first][:, :, : last - first], own)
        for own, (first, last) in zip(segments, prefixes, strict=True)
    ]


def choose_attention(device: torch.device) -> str:
    """Name of the attention implementation for packed rows on ``device``."""
    from transformers import AttentionInterface
    from transformers.utils import is_flash_attn_3_available

    if device.type == "cuda" and is_flash_attn_3_available():
        return "flash_attention_3"
    AttentionInterface.register(SEGMENT_ATTENTION, segment_attention)
    return SEGMENT_ATTENTION

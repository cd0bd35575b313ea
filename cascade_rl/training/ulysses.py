"""Sequence parallelism the way of Ulysses: neighbouring ranks share each row's tokens, and in attention its heads.

    outside attention   rank r holds tokens [r t, (r + 1) t) of a row of T = size * t, with all heads
    all-to-all          -> all T tokens, heads [r h, (r + 1) h)
    attention           over whole segments, on whole rows
    all-to-all          -> its own tokens, all heads

Everything else in the model looks at one token at a time, and losses are sums over tokens, so the sum of the ranks'
gradients is that of the whole row (arXiv 2309.14509; shared notes "training", section 3.5). Rows come cut to
``PackedModel``: a row that is whole is computed by one rank alone, as when a probe is scored.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cascade_rl.training.packing import MicroBatch
from cascade_rl.training.ranks import Ranks
from cascade_rl.types import CascadeError

ULYSSES_ATTENTION = "cascade_ulysses"


@dataclass(frozen=True)
class Together:
    """This rank's place among the ``size`` that share rows."""

    rank: int
    size: int
    group: Any

    @classmethod
    def of(cls, ranks: Ranks, size: int) -> Together:
        """``size`` neighbouring ranks a group. A collective call. Raises CascadeError where groups do not fill up."""
        if ranks.world_size % size:
            raise CascadeError(f"sequence_parallel: {size} does not divide the {ranks.world_size} ranks")
        groups = [dist.new_group(list(range(first, first + size))) for first in range(0, ranks.world_size, size)]
        return cls(ranks.rank % size, size, groups[ranks.rank // size])

    def completed(self, own: Tensor, before: int, count: int) -> Tensor:
        """All ``count`` numbers of which this rank has ``own``, from number ``before`` on: the others' as constants.

        A collective call of the group, where ``count`` is not 0.
        """
        if count == 0:
            return own
        known = own.new_zeros(count)
        mine = torch.arange(before, before + len(own), device=own.device)
        known[mine] = own.detach()
        dist.all_reduce(known, group=self.group)
        return known.index_copy(0, mine, own)


def cut(row: MicroBatch, rank: int, size: int) -> MicroBatch:
    """The ``rank``-th of ``size`` equal parts of ``row``: its tokens, and what of the trained ones they predict.

    Borders stay those of the whole row, which is filled up with a segment of nothing where it does not divide.
    """
    row = _filled_up(row, size)
    count = row.input_ids.shape[1] // size
    first, last = rank * count, (rank + 1) * count
    begin, end = torch.searchsorted(row.predictors, torch.tensor([first, last])).tolist()  # they ascend
    mine = slice(begin, end)
    reference = row.reference_logprobs
    return dataclasses.replace(
        row,
        input_ids=row.input_ids[:, first:last],
        position_ids=row.position_ids[:, first:last],
        predictors=row.predictors[mine] - first,
        targets=row.targets[mine],
        advantages=row.advantages[mine],
        engine_logprobs=row.engine_logprobs[mine],
        weights=row.weights[mine],
        reference_logprobs=None if reference is None else reference[mine],
        kept=None if row.kept is None else row.kept[mine],
        first=first,
    )


def _filled_up(row: MicroBatch, size: int) -> MicroBatch:
    length = row.input_ids.shape[1]
    extra = -length % size
    if extra == 0:
        return row
    return dataclasses.replace(
        row,
        input_ids=torch.cat([row.input_ids, row.input_ids.new_zeros(1, extra)], dim=1),
        position_ids=torch.cat([row.position_ids, torch.arange(extra)[None]], dim=1),
        cu_seq_lens=torch.cat([row.cu_seq_lens, row.cu_seq_lens.new_tensor([length + extra])]),
        max_length=max(row.max_length, extra),
    )


class _Exchange(torch.autograd.Function):
    """[size, ...]: part r goes to rank r, and part r of the result comes from it. Its own inverse and transpose."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, group: Any) -> Tensor:
        ctx.group = group
        received = torch.empty_like(parts, memory_format=torch.contiguous_format)
        dist.all_to_all_single(received, parts.contiguous(), group=group)
        return received

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Exchange.apply(grads[0], ctx.group), None


class UlyssesAttention:
    """``inner`` (transformers' attention interface over packed rows) on heads that are shared out."""

    def __init__(self, together: Together, inner: Any) -> None:
        self._together, self._inner = together, inner

    def __call__(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        cu_seq_lens_q: Tensor | None = None,
        **keys: Any,
    ) -> tuple[Tensor, None]:
        """query: [1, heads, t, d]   key, value: [1, kv_heads, t, d]   -> ([1, t, heads, d], None)"""
        if cu_seq_lens_q is None or int(cu_seq_lens_q[-1]) == query.shape[2]:  # a row that is whole
            return self._inner(module, query, key, value, attention_mask, cu_seq_lens_q=cu_seq_lens_q, **keys)
        whole = (self._all_tokens(tensor) for tensor in (query, key, value))
        out, _ = self._inner(module, *whole, attention_mask, cu_seq_lens_q=cu_seq_lens_q, **keys)
        return self._all_heads(out), None

    def _all_tokens(self, tensor: Tensor) -> Tensor:
        """[1, heads, t, d] of own tokens -> [1, heads / size, T, d] of own heads."""
        size = self._together.size
        _, heads, count, width = tensor.shape
        parts = _Exchange.apply(tensor.view(size, heads // size, count, width), self._together.group)
        return parts.transpose(0, 1).reshape(1, heads // size, size * count, width)

    def _all_heads(self, tensor: Tensor) -> Tensor:
        """[1, T, heads / size, d] of own heads -> [1, t, heads, d] of own tokens."""
        size = self._together.size
        _, length, heads, width = tensor.shape
        parts = _Exchange.apply(tensor.view(size, length // size, heads, width), self._together.group)
        return parts.transpose(0, 1).reshape(1, length // size, size * heads, width)


def share_heads(model: Any, together: Together) -> None:
    """Let ``model`` take rows that are cut. Raises CascadeError where its heads do not divide."""
    from transformers import AttentionInterface
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    config = model.config.get_text_config()
    for what in ("num_attention_heads", "num_key_value_heads"):
        if getattr(config, what) % together.size:
            raise CascadeError(
                f"sequence_parallel: {together.size} does not divide the model's {what}, {getattr(config, what)}"
            )
    inner = ALL_ATTENTION_FUNCTIONS[config._attn_implementation]
    AttentionInterface.register(ULYSSES_ATTENTION, UlyssesAttention(together, inner))
    model.set_attn_implementation(ULYSSES_ATTENTION)

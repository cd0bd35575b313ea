"""Log-probabilities of given tokens without ever holding [T, V] logits.

The head's matrix product is done for a chunk of tokens at a time, so memory is one chunk times the vocabulary whatever
the length. ``fused_token_loss`` is for training: since all that weighs a token is known before the forward pass
(advantages, the engine's log-probs), each chunk's gradient is taken while its logits are at hand, and the head is
multiplied three times instead of four. ``chunked_logprobs`` only looks. Measured: docs/benchmarks.md, "memory".

A chunk is one table [n, V], changed in place from logits z to e = exp(z - max z), whose row sums s give p = e / s. The
table is never divided: 1 / s is one number a row, and goes to the [n, H] side of each product. The product e @ W serves
twice: the gradient of log p(target) in the hidden state is w_target - (e @ W) / s, and sum_v p_v z_v, the part of the
entropy that is not log s, is the hidden state times (e @ W) / s. So the entropy costs no pass over the vocabulary, and
where p underflows nothing is multiplied by the logarithm of 0.

Arithmetic is float32 whatever half precision the inputs have (products of halves are summed in float32), and float64
where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Terms = Callable[[slice, Tensor, Tensor, Tensor], Tensor]
"""(part, logprobs [n], entropy [n], raw_logprobs [n]) -> loss terms [n] of the tokens ``part``, differentiable in the
first two, which are at the sampling temperature; ``raw_logprobs``, at temperature 1, come without gradient."""

CHUNK_BYTES = {"cpu": 2**27}
"""Of a chunk's table, where no number of tokens is given."""
CHUNK_BYTES_ELSEWHERE = 2**30
"""On an accelerator each chunk also reads and writes the head's whole float32 gradient: fewer and larger ones pay."""
BLOCK_BYTES = 2**24
"""Of temporaries, made for a few rows of a table at a time."""


@dataclass(frozen=True)
class TokenScores:
    """What the policy says about T tokens; float32 (float64 for a float64 policy), without gradient, each [T]."""

    logprobs: Tensor
    """At the sampling temperature."""
    entropy: Tensor
    """Of the distribution at the sampling temperature, nats."""
    raw_logprobs: Tensor
    """At temperature 1, over the whole vocabulary; where tokens were kept and the temperature is 1, over those."""
    is_top: Tensor
    """[T] bool: no other token is more probable. A tie counts as top."""

    @classmethod
    def empty(cls, count: int, device: torch.device, dtype: torch.dtype = torch.float32) -> TokenScores:
        logprobs, entropy, raw = (torch.empty(count, dtype=dtype, device=device) for _ in range(3))
        return cls(logprobs, entropy, raw, torch.empty(count, dtype=torch.bool, device=device))


@torch.no_grad()
def chunked_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
    kept: Tensor | None = None,
) -> TokenScores:
    """Scores of ``targets`` under softmax(hidden @ weight.T / temperature), without gradient.

    hidden: [T, H]   weight: [V, H]   targets: [T] int64   chunk_tokens: default ``chunk_size``
    kept: [T, K] int: the ids that each token was drawn from, the target among them, filled up with -1. The softmax is
    over these alone. Default: over all.
    Raises ValueError for a temperature that is not positive.
    """
    head = _Head(hidden, weight, temperature, chunk_tokens, kept)
    scores = TokenScores.empty(len(targets), hidden.device, head.wide)
    for part in head.parts(len(targets)):
        with torch.autocast(hidden.device.type, enabled=False):
            table, top = head.logits(hidden[part].to(head.operand), targets[part], scores, part)
        for rows in _blocks(table):
            shifted = table[rows].sub_(top[rows, None])
            weights = shifted.exp()
            total = weights.sum(1)
            scores.logprobs[part][rows] -= total.log()
            if kept is not None:  # 0 times minus infinity is NaN
                shifted.clamp_(min=torch.finfo(shifted.dtype).min)
            scores.entropy[part][rows] = total.log() - weights.mul_(shifted).sum(1) / total
        head.copy_raw(scores, part)
    return scores


def fused_token_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    terms: Terms,
    *,
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
    kept: Tensor | None = None,
) -> tuple[Tensor, TokenScores]:
    """(sum of ``terms`` over T tokens, scores): the sum is differentiable, once, in hidden and weight.

    hidden: [T, H]   weight: [V, H]   targets: [T] int64   chunk_tokens: default ``chunk_size``
    kept: as in ``chunked_logprobs``; tokens that are not kept have probability 0 and no gradient.
    ``terms`` is called once per chunk, in order, and may be any element-wise function of a token's log-prob and
    entropy; one that uses the entropy costs one more product with the head. Raises ValueError for a temperature that
    is not positive.
    """
    head = _Head(hidden, weight, temperature, chunk_tokens, kept)
    scores = TokenScores.empty(len(targets), hidden.device, head.wide)
    with torch.autocast(hidden.device.type, enabled=False):  # it would round the products
        return _FusedTokenLoss.apply(hidden, weight, targets, terms, head, scores), scores


def chunk_size(vocabulary: int, dtype: torch.dtype, device: torch.device) -> int:
    """Tokens whose logits fit the budget of the device: at least 1, a multiple of 64 where there are as many."""
    rows = CHUNK_BYTES.get(device.type, CHUNK_BYTES_ELSEWHERE) // (vocabulary * dtype.itemsize)
    return max(1, rows - rows % 64 if rows > 64 else rows)


class _FusedTokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, terms: Terms, head: _Head, scores: TokenScores
    ) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        # Summed in float32: rounding every chunk's share to bfloat16 would bias the head.
        grad_weight = torch.zeros_like(weight, dtype=head.wide) if wants_weight else None
        loss = torch.zeros((), dtype=torch.float64, device=hidden.device)
        for part in head.parts(len(targets)):
            states = hidden[part].to(head.operand)  # [n, H]
            table, top, total = head.exponentials(states, targets[part], scores, part)  # [n, V], [n], [n]
            probabilities, norm = head.narrowed(table, total)
            rows = _product(probabilities, head.weight, head.wide)  # [n, H]
            expected = (states * rows).sum(1, dtype=head.wide) / (norm * head.temperature)  # of the logit
            scores.entropy[part] = total.log() + top - expected
            value, by_logprob, by_entropy = _differentiate(terms, part, scores)
            loss += value
            if by_entropy is None:
                rows -= norm[:, None] * head.weight[targets[part]]
                _take_one_hot(probabilities, targets[part], norm)
                factor = -by_logprob / (norm * head.temperature)
            else:
                _mix(table, total, targets[part], by_logprob, by_entropy, scores.entropy[part])
                probabilities = table.to(head.operand)
                rows = _product(probabilities, head.weight, head.wide)
                factor = torch.full_like(by_logprob, 1 / head.temperature)
            if grad_hidden is not None:
                grad_hidden[part] = rows.mul_(factor[:, None])
            if grad_weight is not None:
                _add_product(grad_weight, probabilities.T, (states * factor[:, None]).to(head.operand))
        ctx.gradients, ctx.weight_dtype = (grad_hidden, grad_weight), weight.dtype
        return loss.to(head.wide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradient of a fused token loss can be taken once")
        grad_hidden, grad_weight = ctx.gradients
        ctx.gradients = None  # scaled in place and handed over
        if grad_hidden is not None:
            grad_hidden.mul_(scale)
        if grad_weight is not None:
            grad_weight = grad_weight.mul_(scale).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None, None


class _Head:
    """The head's products with chunks of hidden states, in one table that is used again for each chunk."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, temperature: float, chunk_tokens: int | None, kept: Tensor | None
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.temperature, self._kept = temperature, kept
        # Half-precision states need no more of the head: its master weights are rounded to them, once for all chunks.
        self.operand = hidden.dtype if hidden.dtype.itemsize < 4 else torch.promote_types(hidden.dtype, weight.dtype)
        self.wide = torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)
        if not _sums_halves_in_float32(hidden.device):
            self.operand = self.wide
        self.weight = weight.detach().to(self.operand)
        self._chunk = chunk_tokens or chunk_size(len(weight), self.wide, hidden.device)
        rows = min(self._chunk, len(hidden))
        self._table = torch.empty((rows, len(weight)), dtype=self.wide, device=hidden.device)

    def parts(self, count: int) -> Iterator[slice]:
        """Chunks of ``count`` tokens."""
        return (slice(start, min(start + self._chunk, count)) for start in range(0, count, self._chunk))

    def logits(self, states: Tensor, targets: Tensor, scores: TokenScores, part: slice) -> tuple[Tensor, Tensor]:
        """(logits / temperature [n, V], their row maxima [n]); raw scores are filled in, ``scores.logprobs`` lack
        the normaliser of the exponentials yet."""
        table = _product(states, self.weight.T, self.wide, out=self._table[: len(states)])
        chosen = table.gather(1, targets[:, None]).squeeze(1)
        if self.temperature != 1.0:
            for rows in _blocks(table):
                scores.raw_logprobs[part][rows] = chosen[rows] - table[rows].logsumexp(1)
            table.div_(self.temperature)
            chosen = chosen / self.temperature
        if self._kept is not None:
            _keep_alone(table, self._kept[part])
        top = table.amax(1)
        scores.is_top[part] = chosen >= top
        scores.logprobs[part] = chosen - top
        return table, top

    def exponentials(
        self, states: Tensor, targets: Tensor, scores: TokenScores, part: slice
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(exp(z - max z) [n, V], max z [n], row sums [n]) of z = logits / temperature; log-probs are filled in."""
        table, top = self.logits(states, targets, scores, part)
        total = table.sub_(top[:, None]).exp_().sum(1)
        scores.logprobs[part] -= total.log()
        self.copy_raw(scores, part)
        return table, top, total

    def copy_raw(self, scores: TokenScores, part: slice) -> None:
        """At temperature 1 the two are one, over the kept tokens too."""
        if self.temperature == 1.0:
            scores.raw_logprobs[part] = scores.logprobs[part]

    def narrowed(self, table: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """(table, total) as factors of a product: themselves, or halves that are near probabilities, and their sum."""
        if self.operand == self.wide:
            return table, total
        halves = torch.empty_like(table, dtype=self.operand)
        torch.div(table, total[:, None], out=halves)
        return halves, halves.sum(1, dtype=self.wide)


def _keep_alone(table: Tensor, kept: Tensor) -> None:
    """Minus infinity everywhere in ``table`` [n, V] but at the ids ``kept`` [n, K], which -1 fills up; in place."""
    outside = kept < 0
    ids = kept.clamp(min=0).long()
    values = table.gather(1, ids).masked_fill_(outside, -torch.inf)
    table.fill_(-torch.inf)
    table.scatter_reduce_(1, ids, values, "amax")  # what fills up stands at id 0, and must not hide it


def _differentiate(terms: Terms, part: slice, scores: TokenScores) -> tuple[Tensor, Tensor, Tensor | None]:
    """(sum of the terms in float64, d / d log-prob [n], d / d entropy [n] or None where no term uses the entropy)."""
    logprobs = scores.logprobs[part].detach().requires_grad_()
    entropy = scores.entropy[part].detach().requires_grad_()
    with torch.enable_grad():
        loss = terms(part, logprobs, entropy, scores.raw_logprobs[part])
        summed = loss.sum()
    value = loss.detach().double().sum()
    if not summed.requires_grad:
        return value, torch.zeros_like(logprobs), None
    by_logprob, by_entropy = torch.autograd.grad(summed, (logprobs, entropy), allow_unused=True)
    return value, torch.zeros_like(logprobs) if by_logprob is None else by_logprob, by_entropy


def _take_one_hot(probabilities: Tensor, targets: Tensor, norm: Tensor) -> None:
    """``norm`` less at each row's target, in place: p - onehot, up to ``norm``. [n, V], [n], [n]"""
    chosen = probabilities.gather(1, targets[:, None]).to(norm.dtype) - norm[:, None]
    probabilities.scatter_(1, targets[:, None], chosen.to(probabilities.dtype))


def _mix(
    table: Tensor, total: Tensor, targets: Tensor, by_logprob: Tensor, by_entropy: Tensor, entropy: Tensor
) -> None:
    """d loss / d (logits / temperature), in place of the exponentials ``table`` [n, V].

    d log p(target) / d z = onehot(target) - p;  d entropy / d z = -p (log p + entropy), which is 0 where p is.
    """
    for rows in _blocks(table):
        p = table[rows].div_(total[rows, None])
        surprise = torch.special.entr(p).mul_(by_entropy[rows, None])  # -p log p
        p.mul_(-(by_logprob[rows] + by_entropy[rows] * entropy[rows])[:, None]).add_(surprise)
    table.scatter_add_(1, targets[:, None], by_logprob[:, None])


def _blocks(table: Tensor) -> Iterator[slice]:
    """Rows of ``table`` [n, V] that together take ``BLOCK_BYTES``, or one."""
    rows = max(1, BLOCK_BYTES // (table.shape[1] * table.itemsize))
    return (slice(start, start + rows) for start in range(0, len(table), rows))


def _sums_halves_in_float32(device: torch.device) -> bool:
    """Whether products of halves can be given back in float32; elsewhere the operands are made float32 first."""
    return device.type == "cuda"


def _product(left: Tensor, right: Tensor, dtype: torch.dtype, out: Tensor | None = None) -> Tensor:
    """left @ right, summed and given back in ``dtype``."""
    if left.dtype == dtype:
        return torch.mm(left, right, out=out)
    return torch.mm(left, right, out_dtype=dtype, out=out)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, summed in the dtype of ``total``."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)

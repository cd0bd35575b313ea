"""Log-probabilities of given tokens without ever holding [T, V] logits.

The head's matrix product is done for a chunk of tokens at a time, so memory is one chunk times the vocabulary whatever
the length. ``fused_token_loss`` is for training: since all that weighs a token is known before the forward pass
(advantages, the engine's log-probs), each chunk's gradient is taken while its logits are at hand, and the head is
multiplied three times instead of four. ``chunked_logprobs`` only looks. Measured: docs/benchmarks.md, "memory".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Terms = Callable[[slice, Tensor, Tensor], Tensor]
"""(part, logprobs [n], entropy [n]) -> loss terms [n] of the tokens ``part``, differentiable in both."""


@dataclass(frozen=True)
class TokenScores:
    """What the policy says about T tokens; float32, without gradient, each [T]."""

    logprobs: Tensor
    """At the sampling temperature."""
    entropy: Tensor
    """Of the distribution at the sampling temperature, nats."""
    raw_logprobs: Tensor
    """At temperature 1."""

    @classmethod
    def empty(cls, count: int, device: torch.device) -> TokenScores:
        return cls(*(torch.empty(count, dtype=torch.float32, device=device) for _ in range(3)))


def _score_chunk(logits: Tensor, targets: Tensor, temperature: float, out: TokenScores, part: slice) -> Tensor:
    """Fill ``out[part]`` from raw ``logits`` [n, V] (overwritten); returns log-probs [n, V] of the whole vocabulary."""
    chosen = logits.gather(1, targets[part, None]).squeeze(1)
    normaliser = logits.logsumexp(1)
    out.raw_logprobs[part] = chosen - normaliser
    if temperature != 1.0:
        logits.div_(temperature)
        chosen = chosen / temperature
        normaliser = logits.logsumexp(1)
    out.logprobs[part] = chosen - normaliser
    logits.sub_(normaliser[:, None])
    out.entropy[part] = -(logits.exp() * logits).sum(1)
    return logits


@torch.no_grad()
def chunked_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, temperature: float = 1.0, chunk_tokens: int = 1024
) -> TokenScores:
    """Scores of ``targets`` under softmax(hidden @ weight.T / temperature), without gradient.

    hidden: [T, H]   weight: [V, H]   targets: [T] int64. Raises ValueError for a temperature that is not positive.
    """
    _check(temperature)
    out = TokenScores.empty(targets.shape[0], hidden.device)
    for start in range(0, targets.shape[0], chunk_tokens):
        part = slice(start, start + chunk_tokens)
        _score_chunk((hidden[part] @ weight.T).float(), targets, temperature, out, part)
    return out


def fused_token_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    terms: Terms,
    *,
    temperature: float = 1.0,
    chunk_tokens: int = 1024,
) -> tuple[Tensor, TokenScores]:
    """(sum of ``terms`` over T tokens, scores): the sum is differentiable in hidden and weight.

    hidden: [T, H]   weight: [V, H]   targets: [T] int64. ``terms`` is called once per chunk and may be any element-wise
    function of a token's log-prob and entropy. Raises ValueError for a temperature that is not positive.
    """
    _check(temperature)
    scores = TokenScores.empty(targets.shape[0], hidden.device)
    return _FusedTokenLoss.apply(hidden, weight, targets, terms, temperature, chunk_tokens, scores), scores


class _FusedTokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        terms: Terms,
        temperature: float,
        chunk: int,
        scores: TokenScores,
    ) -> Tensor:
        wants_hidden, wants_weight = hidden.requires_grad, weight.requires_grad
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        # Summed in float32: rounding every chunk's share to bfloat16 would bias the head.
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        for start in range(0, targets.shape[0], chunk):
            part = slice(start, start + chunk)
            table = _score_chunk((hidden[part] @ weight.T).float(), targets, temperature, scores, part)  # [n, V]
            with torch.enable_grad():
                logprobs = scores.logprobs[part].detach().requires_grad_()
                entropy = scores.entropy[part].detach().requires_grad_()
                loss = terms(part, logprobs, entropy)  # [n]
                by_logprob, by_entropy = torch.autograd.grad(
                    loss.sum(), (logprobs, entropy), allow_unused=True, materialize_grads=True
                )
            total += loss.detach().double().sum()
            grad_logits = _gradient_of_logits(table, targets[part], by_logprob, by_entropy, scores.entropy[part])
            grad_logits.div_(temperature)
            if grad_hidden is not None:
                grad_hidden[part] = (grad_logits.to(weight.dtype) @ weight).to(hidden.dtype)
            if grad_weight is not None:
                grad_weight += (grad_logits.T.to(hidden.dtype) @ hidden[part]).float()
        ctx.grad_hidden, ctx.grad_weight, ctx.weight_dtype = grad_hidden, grad_weight, weight.dtype
        return total.float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = grads
        grad_hidden, grad_weight = ctx.grad_hidden, ctx.grad_weight
        ctx.grad_hidden = ctx.grad_weight = None
        if grad_hidden is not None:
            grad_hidden = grad_hidden.mul_(scale)
        if grad_weight is not None:
            grad_weight = grad_weight.mul_(scale).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None, None, None


def _gradient_of_logits(table: Tensor, targets: Tensor, by_logprob: Tensor, by_entropy: Tensor, entropy: Tensor):
    """d loss / d (logits / temperature), in place of ``table`` (log-probs [n, V]).

    d log p(target) / d logits = onehot(target) - p;  d entropy / d logits = -p (log p + entropy).
    """
    if bool((by_entropy != 0).any()):
        share = (table + entropy[:, None]).mul_(by_entropy[:, None])
        gradient = table.exp_().mul_(share.add_(by_logprob[:, None])).neg_()
    else:
        gradient = table.exp_().mul_(-by_logprob[:, None])
    return gradient.scatter_add_(1, targets[:, None], by_logprob[:, None])


def _check(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}")

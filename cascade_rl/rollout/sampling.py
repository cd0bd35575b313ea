"""A request as vLLM is asked for it, in this process or over HTTP: both must sample the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from cascade_rl.recipe import SamplingConfig
from cascade_rl.types import Stop

TIES = 8
"""Log-probs asked for beyond top-k: tokens that are as likely as the k-th are kept too."""


def sampling_fields(sampling: SamplingConfig, seed: int, eos: int) -> dict[str, Any]:
    """Keyword arguments for ``vllm.SamplingParams``."""
    return {
        "seed": seed,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": sampling.max_new_tokens,
        "stop_token_ids": [eos],
        "ignore_eos": True,  # the stop list alone decides: vLLM's own EOS comes from other files of the checkpoint
        "stop": list(sampling.stop),
        "include_stop_str_in_output": True,
        "detokenize": bool(sampling.stop),  # vLLM looks for stop texts in what it has decoded; else it need not
        "skip_special_tokens": False,
        "logprobs": 0,  # of the sampled token alone
    }


def stop_of(finish_reason: str | None, stop_reason: int | str | None) -> Stop:
    """Our word for how vLLM says that a completion ended."""
    if finish_reason == "stop":
        return Stop.STRING if isinstance(stop_reason, str) else Stop.EOS
    return Stop.LENGTH if finish_reason == "length" else Stop.ABORT


def text_of(tokenizer: Any, token_ids: tuple[int, ...], stop: Stop) -> str:
    """The completion as text, without the EOS token that ended it."""
    return tokenizer.decode(token_ids[:-1] if stop is Stop.EOS else token_ids, skip_special_tokens=False)


def kept_of(
    token_ids: Sequence[int], logprobs: Sequence[float], tokens: int
) -> tuple[tuple[float, ...], numpy.ndarray | None]:
    """What vLLM's flat log-probs say of what each token was drawn from.

    token_ids, logprobs: [tokens * (1 + n)], for each token itself and the n likeliest, minus infinity for those that
    sampling cut off -> (log-probs [tokens] of the tokens themselves, kept ids [tokens, K], filled up with -1).
    Should more than n have been kept, the log-probs are those of a draw from the ones that are known.
    """
    if tokens == 0:
        return (), numpy.empty((0, 1), numpy.int32)
    ids = numpy.asarray(token_ids, numpy.int32).reshape(tokens, -1)
    values = numpy.asarray(logprobs, numpy.float64).reshape(tokens, -1)
    # The token itself comes first, and most often again among the likeliest.
    there = numpy.isfinite(values)
    there[:, 1:] &= ids[:, 1:] != ids[:, :1]
    mass = numpy.where(there, numpy.exp(values), 0.0).sum(1)
    own = values[:, 0] - numpy.where(mass < 1 - 1e-4, numpy.log(mass), 0.0)
    order = numpy.argsort(~there, axis=1, kind="stable")  # kept ones to the front
    width = int(there.sum(1).max())
    kept = numpy.take_along_axis(numpy.where(there, ids, -1), order, axis=1)[:, :width]
    return tuple(own.tolist()), kept.astype(numpy.int32)

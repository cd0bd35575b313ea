"""A request as vLLM is asked for it, in this process or over HTTP: both must sample the same."""

from __future__ import annotations

from typing import Any

from cascade_rl.recipe import SamplingConfig
from cascade_rl.types import Stop


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

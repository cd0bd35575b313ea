"""A language model with a scalar head: one score per conversation, read off at its last token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cascade_rl.training.fused_layers import fuse_layers
from cascade_rl.types import CascadeError

HEAD = "score.weight"
"""Name of the head's one tensor in transformers' and vLLM's one-label classifiers."""
PADDING = ("<|endoftext|>", "<|finetune_right_pad_id|>", "<|end_of_text|>", "<pad>", "[PAD]", "<unk>")
"""Candidates for a tokenizer whose own padding token will not do."""


class FloatHead(torch.nn.Linear):
    """A linear layer that computes in float32 under autocast too.

    In bfloat16 a score near 4 is rounded to multiples of 1/64: margins of good pairs would be noise. vLLM computes the
    head in float32 as well.
    """

    def forward(self, input: Tensor) -> Tensor:
        wide = torch.promote_types(torch.promote_types(input.dtype, self.weight.dtype), torch.float32)
        with torch.autocast(input.device.type, enabled=False):
            return torch.nn.functional.linear(input.to(wide), self.weight.to(wide))


def load_reward_model(
    checkpoint: str,
    device: torch.device,
    seed: int,
    pad_token_id: int,
    *,
    attention: str = "sdpa",
    keep_on_cpu: bool = False,
) -> Any:
    """``checkpoint`` as a float32 one-label classifier on ``device``, dropout off.

    ``attention``: of transformers' implementations; the default takes padded rows on any device, for packed ones see
    ``choose_attention``. With ``keep_on_cpu`` its weights wait there for whoever cuts them into shards.

    A causal language model gets a fresh head, drawn from ``seed`` (normal, the model's own initializer range; the same
    on every machine); a one-label classifier keeps its own. ``pad_token_id`` tells it where padded rows end. Raises
    CascadeError for a classifier with other labels, and for what does not load.
    """
    from transformers import AutoModelForSequenceClassification

    where, is_classifier = f"checkpoint {checkpoint}", _is_classifier(checkpoint)
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            checkpoint,
            dtype=torch.float32,
            attn_implementation=attention,
            output_loading_info=True,
            **({} if is_classifier else {"num_labels": 1}),
        )
    except Exception as error:
        raise CascadeError(f"{where} does not load as a sequence classifier: {error}") from error
    if model.config.num_labels != 1:
        raise CascadeError(
            f"{where} is a classifier of {model.config.num_labels} labels; a reward model starts from a language "
            "model, or from a classifier of one label"
        )
    head = getattr(model, "score", None)
    if not isinstance(head, torch.nn.Linear) or head.bias is not None:
        raise CascadeError(f"{where}: {type(model).__name__} has no linear `score` head without bias, as vLLM expects")
    missing = set(report.get("missing_keys") or ())
    if missing - (set() if is_classifier else {HEAD}):
        raise CascadeError(f"{where} lacks weights: {', '.join(sorted(missing)[:5])}")
    if not is_classifier:
        width = float(model.config.get_text_config().initializer_range)
        drawn = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(seed))
        head.weight.data.copy_(width * drawn)
    head.__class__ = FloatHead  # parameters and names stay
    model.config.get_text_config().pad_token_id = pad_token_id
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    if attention != "sdpa":
        fuse_layers(model, device)
    return model if keep_on_cpu else model.to(device)


def _is_classifier(checkpoint: str) -> bool:
    """Whether the checkpoint has a head of its own, by the architecture it names."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(checkpoint)
    except Exception as error:
        raise CascadeError(f"checkpoint {checkpoint} does not load in transformers: {error}") from error
    return any("SequenceClassification" in name for name in config.architectures or ())


def choose_padding(tokenizer: Any) -> None:
    """Give ``tokenizer`` a padding token that no conversation ends with.

    transformers takes the last token that is not padding for a row's end, vLLM the last token: where padding is the
    end-of-turn token, as Llama's tokenizers are often used, they read different scores. Raises CascadeError where the
    vocabulary has no other control token.
    """
    if tokenizer.pad_token is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    known = tokenizer.get_vocab()
    for token in (*PADDING, tokenizer.bos_token):
        if token in known and known[token] != tokenizer.eos_token_id:
            tokenizer.pad_token = token
            return
    raise CascadeError(
        f"the tokenizer has no padding token other than its end-of-turn token {tokenizer.eos_token!r}, where the score "
        f"is read; set one that it knows, such as one of {', '.join(PADDING[:3])}, in the model's tokenizer_config.json"
    )

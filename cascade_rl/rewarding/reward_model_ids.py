"""What a reward model reads: one conversation as token ids, the same in training, in measuring and in RLHF.

The model's own chat template with no parameters, ended at the end-of-turn token, where the score is read off. Whoever
serves the checkpoint gets the same ids from ``tokenizer.apply_chat_template(messages, tokenize=False).rstrip()``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cascade_rl.data.defusing import defused, defused_value
from cascade_rl.types import CascadeError


def judged_ids(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Token ids of a conversation that ends with the assistant's answer; the last one is the end-of-turn token.

    Text that spells a control token or a tag of thinking, of calls or of their results is broken up by a space as in
    what a policy reads (``data.defusing``), in arguments of calls too: an answer must not pose as a turn of its own.
    Raises CascadeError where the template cannot render the conversation.
    """
    control = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    try:
        text = tokenizer.apply_chat_template([_defused(each, control) for each in messages], tokenize=False)
    except Exception as error:
        raise CascadeError(f"a conversation cannot be rendered for the reward model: {error}") from error
    # Templates end a turn with a line break (ChatML) or without (Llama): the score is read at what is before it.
    ids = tokenizer.encode(text.rstrip(), add_special_tokens=False)
    closing = tokenizer.added_tokens_decoder.get(ids[-1])
    if closing is None or not closing.special:
        ids.append(tokenizer.eos_token_id)
    return ids


def _defused(message: Mapping[str, Any], control: Sequence[str]) -> dict[str, Any]:
    if isinstance(message.get("content"), str):
        return defused(message, control)
    return dict(defused_value(message, control))  # parts, for a template that renders them

"""Chat templates of other makers (``template: {mode: native}``): which token ends their turns, which tokens they write,
and how an answer goes on from a prompt that has opened the thinking, or closed it."""

from __future__ import annotations

import re
from typing import Any

from cascade_rl.data.defusing import ANSWER_TAGS, CLOSE, OPEN
from cascade_rl.types import CascadeError, Message

MARK = "marked"
"""An answer to render where only what stands around it is of interest."""
_TAG = re.compile(r"[<\[].+[>\]]")
_PLAIN = re.compile(rf"\s*({OPEN}\s*)?({CLOSE}\s*)?{MARK}")


def reserved_tokens(tokenizer: Any, template: str) -> tuple[str, ...]:
    """The tokens that no text of a row may spell: all special ones, and those of the form of a tag that ``template``
    writes (some makers do not count ``<｜User｜>`` as special).

    The tags of thinking and of calls are not among them: an assistant keeps those around its own thinking.
    """
    found = []
    for added in tokenizer.added_tokens_decoder.values():
        token = str(added)
        if token not in ANSWER_TAGS and (added.special or (_TAG.fullmatch(token) and token in template)):
            found.append(token)
    return tuple(found)


def end_of_turn(tokenizer: Any) -> str | None:
    """The special token with which the tokenizer's template ends an answer; None where there is none.

    It need not be the tokenizer's EOS token: Gemma ends its turns by ``<end_of_turn>``, base models of Qwen know
    ChatML and have ``<|endoftext|>`` as EOS.
    """
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": MARK}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception:  # a template that takes no such conversation names its reason for each row
        return None
    _, there, tail = text.rpartition(MARK)
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    found = [token for token in special if there and token in tail]
    return min(found, key=lambda token: (tail.index(token), -len(token)), default=None)


def answer_text(message: Message) -> str:
    """An assistant turn's own text, thinking included: ``<think>\\n{reasoning}\\n</think>\\n\\n{answer}``."""
    content = message.get("content") or ""
    if message.get("reasoning_content"):
        return f"<think>\n{message['reasoning_content'].strip(chr(10))}\n</think>\n\n{content.lstrip(chr(10))}"
    return content


def answer_after(prompt: str, plain: str, message: Message) -> str:
    """What the model writes after ``prompt`` to say ``message``, where its template renders that otherwise (many cut
    the thinking out of every answer). Texts of ``message`` are broken up already (``data.defusing``).

    ``plain``: the conversation of the prompt with ``MARK`` as its answer. Raises CascadeError where the template does
    not write answers as they are, or asks for one without thinking.
    """
    before = prompt.rstrip().removesuffix(CLOSE).rstrip().removesuffix(OPEN).rstrip()
    if not plain.startswith(before) or not _PLAIN.match(plain, len(before)):
        raise CascadeError(
            "the model's own template writes answers in a form of its own, which has no room for this one"
        )
    answer = answer_text(message)
    if _thinks(message) and prompt.rstrip().endswith(CLOSE):
        raise CascadeError(
            "the model's own template asks for an answer without thinking (its prompt ends with </think>), and the row "
            "has one with thinking"
        )
    if prompt.rstrip().endswith(OPEN) and answer.lstrip().startswith(OPEN):  # the prompt has opened the thinking
        answer = answer.lstrip().removeprefix(OPEN)
        return answer if prompt.endswith(OPEN) else answer.lstrip("\n")
    return with_closed_thinking(prompt, message, answer)


def with_closed_thinking(prompt: str, message: Message, answer: str) -> str:
    """``answer``, which says ``message``, with the end of an empty thinking before it where ``prompt`` has opened the
    thinking and the answer has none: else the answer itself would stand within the thinking."""
    if not prompt.rstrip().endswith(OPEN) or CLOSE in answer or _thinks(message):
        return answer
    return ("" if prompt.endswith("\n") else "\n") + f"\n{CLOSE}\n\n" + answer.lstrip("\n")


def _thinks(message: Message) -> bool:
    content = message.get("content") or ""
    return bool(message.get("reasoning_content")) or OPEN in content or CLOSE in content

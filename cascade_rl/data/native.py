"""Chat templates of other makers (``template: {mode: native}``): which token ends their turns, which tokens they write,
under which key they read reasoning, and how an answer follows a prompt that has opened or closed the thinking."""

from __future__ import annotations

import re
from typing import Any

from cascade_rl.data.defusing import ANSWER_TAGS, CLOSE, OPEN
from cascade_rl.types import CascadeError, Message

MARK = "marked"
"""An answer to render where only what stands around it is of interest."""
_TAG = re.compile(r"[<\[].+[>\]]")
_PLAIN = re.compile(rf"\s*({OPEN}\s*)?({CLOSE}\s*)?{MARK}")
_EMPTY_THINKING = re.compile(rf"\s*{OPEN}\s*{CLOSE}\s*")
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")


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
    text = _probed(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": MARK}])
    _, there, tail = (text or "").rpartition(MARK)
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    found = [token for token in special if there and token in tail]
    return min(found, key=lambda token: (tail.index(token), -len(token)), default=None)


def reasoning_key(tokenizer: Any) -> str | None:
    """The key of a message under which the tokenizer's template reads reasoning; None where it reads none."""
    for key in _REASONING_KEYS:
        text = _probed(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", key: MARK}])
        if MARK in (text or ""):
            return key
    return None


def leaves_out_text(tokenizer: Any) -> bool:
    """Whether the tokenizer's template drops contents that are texts: models that see images may read parts alone."""
    text = _probed(tokenizer, [{"role": "user", "content": MARK}])
    return text is not None and MARK not in text


def _probed(tokenizer: Any, messages: list[dict[str, Any]]) -> str | None:
    """``messages`` as text; None where the template does not take them (it then names its reason for each row)."""
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:
        return None


def with_reasoning_under(key: str | None, message: dict[str, Any]) -> dict[str, Any]:
    """``message`` with its reasoning under ``key``, whether it stood in the content or beside it.

    So a turn has one text however a row writes it. Unfinished and empty thinking stays in the content.
    """
    if key is None or message["role"] != "assistant":
        return message
    reasoning, content = message.get("reasoning_content"), message["content"]
    if not reasoning:
        thinking, _, answer = content.rpartition(CLOSE)
        reasoning, content = thinking.strip().removeprefix(OPEN).strip("\n"), answer.lstrip("\n")
    if not reasoning.strip():
        return message
    beside = {name: value for name, value in message.items() if name != "reasoning_content"}
    return {**beside, "content": content, key: reasoning}


def answer_text(message: Message) -> str:
    """An assistant turn's own text, thinking included: ``<think>\\n{reasoning}\\n</think>\\n\\n{answer}``."""
    content = message.get("content") or ""
    if message.get("reasoning_content"):
        return f"<think>\n{message['reasoning_content'].strip(chr(10))}\n</think>\n\n{content.lstrip(chr(10))}"
    return content


def answer_after_empty_thinking(prompt: str, whole: str, end: str) -> str | None:
    """What the model writes after ``prompt``, which has opened the thinking, to say the last message of ``whole``, that
    its template shows after an empty one; None where that is not so. ``end`` ends the turn."""
    before = _without_opening(prompt)
    found = _EMPTY_THINKING.match(whole, len(before))
    if not prompt.rstrip().endswith(OPEN) or not whole.startswith(before) or not found:
        return None
    return _closing(prompt) + whole[found.end() :].partition(end)[0]


def answer_after(prompt: str, plain: str, message: Message) -> str:
    """What the model writes after ``prompt`` to say ``message``, where its template renders that otherwise (many cut
    the thinking out of every answer). Texts of ``message`` are broken up already (``data.defusing``).

    ``plain``: the conversation of the prompt with ``MARK`` as its answer. Raises CascadeError where the template does
    not write answers as they are, or asks for one without thinking.
    """
    before = _without_opening(prompt)
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
    if prompt.rstrip().endswith(CLOSE):
        return answer.rpartition(CLOSE)[2].lstrip("\n") if CLOSE in answer else answer
    if prompt.rstrip().endswith(OPEN) and answer.lstrip().startswith(OPEN):  # the prompt has opened the thinking
        answer = answer.lstrip().removeprefix(OPEN)
        return answer if prompt.endswith(OPEN) else answer.lstrip("\n")
    return with_closed_thinking(prompt, message, answer)


def with_closed_thinking(prompt: str, message: Message, answer: str) -> str:
    """``answer``, which says ``message``, with the end of an empty thinking before it where ``prompt`` has opened the
    thinking and the answer has none: else the answer itself would stand within the thinking."""
    if not prompt.rstrip().endswith(OPEN) or CLOSE in answer or _thinks(message):
        return answer
    return _closing(prompt) + answer.lstrip("\n")


def _closing(prompt: str) -> str:
    """The end of an empty thinking that ``prompt`` has opened, as Qwen3 writes it: ``<think>\\n\\n</think>\\n\\n``."""
    return ("" if prompt.endswith("\n") else "\n") + f"\n{CLOSE}\n\n"


def _without_opening(prompt: str) -> str:
    """``prompt`` without what it says of thinking at its end."""
    return prompt.rstrip().removesuffix(CLOSE).rstrip().removesuffix(OPEN).rstrip()


def _thinks(message: Message) -> bool:
    """Whether ``message`` has thinking, finished or not. An empty one is none."""
    content = message.get("content") or ""
    thinking = content.rpartition(CLOSE)[0] if CLOSE in content else content if OPEN in content else ""
    return bool(message.get("reasoning_content") or thinking.strip().removeprefix(OPEN).strip())

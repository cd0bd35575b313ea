"""One renderer of conversations for SFT, RL and evaluation (P1 section 2; the model card's exact strings).

The template itself is ``chat_template.jinja`` beside this file; it travels inside every checkpoint, so any server
renders the same. This module adds what a template cannot say: which tokens are trained, and what must not change. What
is trained is cut from the same rendering that history, sampling and evaluation use, so a turn is learnt as it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cascade_rl.data.defusing import CONTROL_TOKENS, END_OF_TURN, defused, defused_value
from cascade_rl.data.messages import normal_messages, tools_of
from cascade_rl.recipe import TemplateConfig
from cascade_rl.types import CascadeError, Message


@dataclass(frozen=True)
class TrainingRow:
    """One assistant turn to learn: the tokens before it, exactly as at inference, and its own with the EOS."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


def chat_template(system: str | None) -> str:
    """The template's text with the default system prompt written into it."""
    text = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")
    # Through json a quote or newline in the prompt stays inside its Jinja string.
    return text.replace("@SYSTEM@", "none" if system is None else json.dumps(system, ensure_ascii=False)).strip()


class Template:
    """A tokenizer and the rules of ``TemplateConfig`` for it."""

    def __init__(self, config: TemplateConfig, tokenizer: Any) -> None:
        self._config = config
        self._tokenizer = tokenizer

    @property
    def thinks_by_default(self) -> bool:
        """Whether rows without a flag of their own are answered with thinking."""
        return self._config.mode == "thinking"

    def install(self) -> None:
        """Put template and EOS on the tokenizer (``native``: leave both as they are).

        Raises CascadeError when the tokenizer lacks ChatML's tokens, or has no template at all in native mode.
        """
        tokenizer = self._tokenizer
        if self._config.mode == "native":
            if not tokenizer.chat_template:
                raise CascadeError("template.mode is native, but the model's tokenizer has no chat template")
            return
        known = tokenizer.get_vocab()
        missing = [token for token in CONTROL_TOKENS[:2] if token not in known]
        if missing:
            raise CascadeError(
                f"the model's tokenizer has no {' and '.join(missing)}, which the template needs; "
                "use template: {mode: native} for a model trained with another template"
            )
        tokenizer.chat_template = chat_template(self._config.system)
        tokenizer.eos_token = END_OF_TURN
        if tokenizer.pad_token is None:
            tokenizer.pad_token = "<|endoftext|>" if "<|endoftext|>" in known else END_OF_TURN

    def prompt_ids(
        self, messages: Sequence[Message], thinking: bool | None = None, tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Token ids of a conversation up to where the model's own tokens begin.

        ``thinking`` is the row's own mode; None takes the recipe's. ``tools`` are listed in the system prompt. Raises
        CascadeError for a unified recipe's row without a mode, and for what cannot be rendered.
        """
        return self._encode(self.prompt_text(messages, thinking, tools))

    def prompt_text(
        self, messages: Sequence[Message], thinking: bool | None = None, tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        """The text that ``prompt_ids`` encodes."""
        return self._rendered(normal_messages(messages), thinking, tools_of(tools), opens_answer=True)

    def training_rows(
        self,
        messages: Sequence[Message],
        thinking: bool | None = None,
        turns: Literal["each", "last"] = "each",
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> list[TrainingRow]:
        """One row per trained assistant turn, its history rendered as the model will see it at inference.

        Raises CascadeError for a turn that cannot be rendered, or of which nothing would be trained but its end.
        """
        messages, tools = normal_messages(messages), tools_of(tools)
        spoken = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if turns == "last":
            spoken = spoken[-1:]
        return [self._training_row(messages[: index + 1], thinking, tools) for index in spoken]

    def _training_row(
        self, messages: Sequence[Message], thinking: bool | None, tools: Sequence[Mapping[str, Any]]
    ) -> TrainingRow:
        """The last of ``messages`` as what is trained, those before it as its prompt."""
        prompt = self._rendered(messages[:-1], thinking, tools, opens_answer=True)
        whole = self._rendered(messages, thinking, tools, opens_answer=False)
        answer = self._answer(prompt, whole, messages[-1])
        if not answer.strip():
            raise CascadeError(f"message {len(messages) - 1} of the assistant is empty: only its end would be trained")
        return TrainingRow(tuple(self._encode(prompt)), (*self._encode(answer), self._tokenizer.eos_token_id))

    def _answer(self, prompt: str, whole: str, message: Message) -> str:
        """The part of the rendering ``whole`` that the model itself would have written after ``prompt``."""
        if whole.startswith(prompt):
            answer, end, _ = whole[len(prompt) :].rpartition(self._tokenizer.eos_token)
            if end and (self._config.mode != "native" or _holds(answer, message)):
                return answer
        # Only templates of other makers come here: some cut the thinking out of every answer, or end turns otherwise.
        if message.get("tool_calls"):
            raise CascadeError("the model's own template does not render a tool call as what the model writes")
        return answer_text(defused(message, self._control_tokens))

    def _rendered(
        self,
        messages: Sequence[Message],
        thinking: bool | None,
        tools: Sequence[Mapping[str, Any]],
        *,
        opens_answer: bool,
    ) -> str:
        """``messages`` in the one form as text; with ``opens_answer`` up to where the next answer begins."""
        more = {} if self._config.mode == "native" else {"enable_thinking": self.thinks(thinking)}
        try:
            text = self._tokenizer.apply_chat_template(
                [defused(message, self._control_tokens) for message in messages],
                tools=[defused_value(tool, self._control_tokens) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=opens_answer,
                **more,
            )
        except Exception as error:
            raise CascadeError(f"a conversation cannot be rendered: {error}") from error
        if self._config.mode == "native":
            _refuse_left_out(text, messages, tools)
        return text

    def probe(self) -> dict[str, dict[str, Any]]:
        """A fixed set of conversations as text and token ids: the same in every stage of a cascade, or it stops."""
        rendered: dict[str, dict[str, Any]] = {}
        modes = (True, False) if self._config.mode != "native" else (None,)
        for name, messages in _PROBES.items():
            for thinking in modes:
                text = self.prompt_text(messages, thinking)
                label = f"{name}, {'as is' if thinking is None else 'thinking' if thinking else 'not thinking'}"
                rendered[label] = {"text": text, "ids": self._encode(text)}
        return rendered

    def thinks(self, thinking: bool | None) -> bool:
        """The mode of a row whose own is ``thinking``. Raises CascadeError where nothing says which."""
        if thinking is not None:
            return thinking
        if self._config.mode == "unified":
            raise CascadeError(
                "template.mode is unified, so every row must say `thinking: true` or `false` in a column of that name"
            )
        return self.thinks_by_default

    @property
    def _control_tokens(self) -> tuple[str, ...]:
        """Tokens that end or begin a turn, which no text of a row may spell."""
        end = self._tokenizer.eos_token
        return CONTROL_TOKENS if end is None or end in CONTROL_TOKENS else (*CONTROL_TOKENS, end)

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)


def answer_text(message: Message) -> str:
    """An assistant turn's own text, thinking included: ``<think>\\n{reasoning}\\n</think>\\n\\n{answer}``."""
    content = message.get("content") or ""
    if message.get("reasoning_content"):
        return f"<think>\n{message['reasoning_content'].strip(chr(10))}\n</think>\n\n{content.lstrip(chr(10))}"
    return content


def _refuse_left_out(text: str, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> None:
    """Raises CascadeError where a template of another maker does not show a tool, or a call of the history."""
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    for used in (*tools, *calls):
        name = used["function"]["name"]
        if name not in text:
            raise CascadeError(f"the model's own template leaves out the tool or call {name!r}")


def _holds(answer: str, message: Message) -> bool:
    """Whether the rendered ``answer`` has all that ``message`` says."""
    content = message.get("content") or ""
    parts = [message.get("reasoning_content") or "", content.rpartition("</think>")[2]]
    if "</think>" in content:
        parts.append(content.rpartition("</think>")[0].replace("<think>", ""))
    names = [call["function"]["name"] for call in message.get("tool_calls", ())]
    shown = answer.replace(" ", "")
    return all(part.strip().replace(" ", "") in shown for part in (*parts, *names))


def probe_difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Both sides of the first conversation that two probes render differently."""
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if old != new:
            old, new = old or {"text": "(not rendered)", "ids": []}, new or {"text": "(not rendered)", "ids": []}
            if old["text"] != new["text"]:
                return f"conversation {name!r}\nthen: {old['text']!r}\nnow:  {new['text']!r}"
            return f"conversation {name!r}, same text\nthen: {old['ids']}\nnow:  {new['ids']}"
    return "no difference"


_PROBES: dict[str, list[dict[str, str]]] = {
    "single turn": [{"role": "user", "content": "calculate 1+1?"}],
    "two turns": [
        {"role": "user", "content": "calculate 1+1?"},
        {"role": "assistant", "content": "<think>\nOne and one.\n</think>\n\n\\boxed{2}"},
        {"role": "user", "content": "what about 2+2"},
    ],
    "own system prompt": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Grüße, 世界! {{ x }}\n\n  def f(x):\n\treturn x"},
    ],
}

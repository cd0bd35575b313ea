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

from cascade_rl.data import native
from cascade_rl.data.defusing import CONTROL_TOKENS, END_OF_TURN, defused, defused_value
from cascade_rl.data.left_out import left_out_of_answer, left_out_of_prompt
from cascade_rl.data.messages import is_trained, normal_messages, offered_tools, tools_of
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
        self._reserved: tuple[str, ...] | None = None
        self._reasoning_key: str | None = None

    @property
    def thinks_by_default(self) -> bool:
        """Whether rows without a flag of their own are answered with thinking."""
        return self._config.mode == "thinking"

    def install(self) -> None:
        """Put template and EOS on the tokenizer. With ``native`` the template stays as it is, and EOS becomes the token
        that ends its turns, where that is another.

        Raises CascadeError when the tokenizer lacks ChatML's tokens, or in native mode has no template, or one
        that takes no texts.
        """
        tokenizer = self._tokenizer
        if self._config.mode == "native":
            if not tokenizer.chat_template:
                raise CascadeError("template.mode is native, but the model's tokenizer has no chat template")
            if native.leaves_out_text(tokenizer):
                raise CascadeError(
                    "template.mode is native, but the model's template leaves out messages whose content is text, as "
                    "those of models that see images do; use template: {mode: thinking} or another model"
                )
            if end := native.end_of_turn(tokenizer):
                tokenizer.eos_token = end
            self._reasoning_key = native.reasoning_key(tokenizer)
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
        return self._prompt(*_normal(messages, tools), thinking)

    def training_rows(
        self,
        messages: Sequence[Message],
        thinking: bool | None = None,
        turns: Literal["each", "last"] = "each",
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> list[TrainingRow]:
        """One row per trained assistant turn, its history rendered as the model will see it at inference.

        A message before which nothing was asked (a greeting) and one of ``weight: 0`` are history only. Raises
        CascadeError for a turn that cannot be rendered or of which nothing would be trained but its end, for a weight
        between 0 and 1, and for a conversation of which no turn is left to train.
        """
        messages, tools = _normal(messages, tools)
        spoken = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if turns == "last":
            spoken = spoken[-1:]
        asked = _first_question(messages)
        trained = [index for index in spoken if index > asked and _is_trained(messages[index], index)]
        if spoken and not trained:
            raise CascadeError(
                "no turn of the assistant is left to train: a message before which no user or tool has said anything "
                "and messages of weight 0 are only context"
            )
        return [self._training_row(messages[: index + 1], thinking, tools) for index in trained]

    def _training_row(
        self, messages: Sequence[Message], thinking: bool | None, tools: Sequence[Mapping[str, Any]]
    ) -> TrainingRow:
        """The last of ``messages`` as what is trained, those before it as its prompt."""
        said = messages[-1]
        prompt = self._prompt(messages[:-1], tools, thinking)
        answer = self._answer(prompt, messages, tools, thinking)
        has_any = str(said["content"]).strip() or said.get("reasoning_content") or said.get("tool_calls")
        if not has_any or not answer.strip():
            raise CascadeError(f"message {len(messages) - 1} of the assistant is empty: only its end would be trained")
        return TrainingRow(tuple(self._encode(prompt)), (*self._encode(answer), self._tokenizer.eos_token_id))

    def _answer(
        self, prompt: str, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], thinking: bool | None
    ) -> str:
        """What the model itself would have written after ``prompt``: the last of ``messages``."""

        def render(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str:
            return self._rendered(messages, tools, thinking, opens_answer=False)

        whole = render(messages, tools)
        own = defused(messages[-1], self._control_tokens)
        end = self._tokenizer.eos_token
        if self._config.mode != "native":
            return whole[len(prompt) :].partition(end)[0]
        if not left_out_of_answer(render, whole, messages, tools):
            if whole.startswith(prompt):
                answer, ended, _ = whole[len(prompt) :].partition(end)
                if ended or not own.get("tool_calls"):
                    return native.with_closed_thinking(prompt, own, answer if ended else answer.rstrip())
            elif (after := native.answer_after_empty_thinking(prompt, whole, end)) is not None:
                return after
        # Some templates cut the thinking out of every answer, or write another prompt than they show in history.
        if own.get("tool_calls"):
            raise CascadeError("the model's own template does not render a tool call as what the model writes")
        plain = render([*messages[:-1], {"role": "assistant", "content": native.MARK}], tools)
        return native.answer_after(prompt, plain, own)

    def _prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], thinking: bool | None) -> str:
        """Normal messages as text up to where the next answer begins.

        Raises CascadeError where a template of another maker leaves out a tool, a call or a result of a tool.
        """

        def render(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str:
            return self._rendered(messages, tools, thinking, opens_answer=True)

        text = render(messages, tools)
        if self._config.mode == "native" and (name := left_out_of_prompt(render, text, messages, tools)):
            raise CascadeError(f"the model's own template leaves out {name}")
        return text

    def _rendered(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        thinking: bool | None,
        *,
        opens_answer: bool,
    ) -> str:
        """Normal messages as text; with ``opens_answer`` up to where the next answer begins."""
        control, found = self._control_tokens, []
        for message in messages:
            made = defused(message, control)
            found.append(native.with_reasoning_under(self._reasoning_key, made))
        more = {} if self._config.mode == "native" else {"enable_thinking": self.thinks(thinking)}
        try:
            return self._tokenizer.apply_chat_template(
                found,
                tools=[defused_value(tool, control) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=opens_answer,
                **more,
            )
        except Exception as error:
            raise CascadeError(f"a conversation cannot be rendered: {error}") from error

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
        """Tokens that no text of a row may spell: those around turns, and the others that the tokenizer reserves."""
        if self._reserved is None:
            template = str(self._tokenizer.chat_template) if self._config.mode == "native" else ""
            self._reserved = native.reserved_tokens(self._tokenizer, template)
        end = self._tokenizer.eos_token
        return tuple(dict.fromkeys((*CONTROL_TOKENS, *([] if end is None else [end]), *self._reserved)))

    def _encode(self, text: str) -> list[int]:
        try:
            return self._tokenizer.encode(text, add_special_tokens=False)
        except (TypeError, UnicodeError) as error:
            raise CascadeError(f"a text cannot be encoded as tokens (half of a surrogate pair?): {error}") from None


def _normal(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
) -> tuple[tuple[Message, ...], tuple[dict[str, Any], ...]]:
    """Messages and tools in the one form; rows from ``data.sources`` have it already, and their nulls are meant."""
    return offered_tools(normal_messages(messages), tools_of(tools, nulls=True))


def _first_question(messages: Sequence[Message]) -> int:
    """Where a user or a tool first says something; the number of messages where none does."""
    said = (
        index
        for index, message in enumerate(messages)
        if message["role"] in ("user", "tool") and str(message["content"]).strip()
    )
    return next(said, len(messages))


def _is_trained(message: Message, index: int) -> bool:
    try:
        return is_trained(message)
    except ValueError as error:
        raise CascadeError(f"message {index}: {error}") from None


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

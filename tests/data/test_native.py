"""Templates of other makers, each reduced to what is odd about it: a turn has one text, and it is the template's own."""

import pytest

from cascade_rl.data import native
from cascade_rl.data.template import Template
from cascade_rl.models.tiny_qwen3 import build_tokenizer
from cascade_rl.recipe import TemplateConfig
from cascade_rl.types import CascadeError

USER = {"role": "user", "content": "go"}
CALL = {"name": "f", "arguments": {"x": 1}}
THINKS = (
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"},
    {"role": "assistant", "content": "yes", "reasoning": "hm"},
    {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}]},
)
ANSWERS = {"role": "assistant", "content": "yes"}


def made(text, special=(), eos="<|im_end|>"):
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template, tokenizer.eos_token = text, eos
    template = Template(TemplateConfig(mode="native"), tokenizer)
    template.install()
    return template


def trained(template, *messages):
    """The text of the last turn that is trained."""
    return template._tokenizer.decode(template.training_rows([USER, *messages], turns="last")[0].completion_ids)


def turns(assistant, opening="<|im_start|>assistant\n", end="<|im_end|>\n"):
    """ChatML with another form of an assistant's turn, and another end of prompts."""
    return (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        + assistant
        + end
        + "{% else %}<|im_start|>{{ m.role }}\n"
        "{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}" + opening + "{% endif %}"
    )


BESIDE_ONLY = turns(
    "<|im_start|>assistant\n<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{{ m.content }}",
    "<|im_start|>assistant\n<think>\n",
)
"""Reads ``reasoning_content``, and takes a content as it is."""
CHANNELS = turns(
    "{% if m.thinking %}<|im_start|>assistant[analysis]{{ m.thinking }}[end]{% endif %}<|im_start|>assistant[final]"
    "{{ m.content }}",
    "<|im_start|>assistant",
)
"""gpt-oss: thinking in a channel of its own, under the key ``thinking``."""
TIGHT = turns("<|im_start|>assistant\n<think>{{ m.reasoning }}</think>{{ m.content }}")
"""No line breaks around its tags."""


@pytest.mark.parametrize(
    ("text", "key", "thinks", "answers"),
    [
        (BESIDE_ONLY, "reasoning_content", "hm\n</think>\n\nyes", "\n</think>\n\nyes"),
        (CHANNELS, "thinking", "[analysis]hm[end]<|im_start|>assistant[final]yes", "[final]yes"),
        (TIGHT, "reasoning", "<think>hm</think>yes", "<think></think>yes"),
        (turns("<|im_start|>assistant\n{{ m.content }}"), None, "<think>\nhm\n</think>\n\nyes", "yes"),
    ],
)
def test_thinking_is_written_as_the_template_writes_it(text, key, thinks, answers):
    template = made(text)
    assert native.reasoning_key(template._tokenizer) == key
    assert {trained(template, message) for message in THINKS} == {f"{thinks}<|im_end|>"}
    assert trained(template, ANSWERS) == f"{answers}<|im_end|>"


def test_unfinished_thinking_stays_where_it_is():
    assert trained(made(CHANNELS), {"role": "assistant", "content": "<think>\ncut"}) == "[final]<think>\ncut<|im_end|>"


EMPTY_SHOWN = turns(
    "<|im_start|>assistant\n<think>{{ m.reasoning_content or '' }}</think>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}{{ c.function.arguments | tojson }}</call>{% endfor %}",
    "<|im_start|>assistant\n<think>\n",
)
"""Nemotron 3: history shows an empty thinking tightly, a prompt opens it with a line break."""


def test_a_call_after_a_prompt_that_opens_the_thinking():
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert trained(made(EMPTY_SHOWN), call) == '\n</think>\n\n<call>f{"x": 1}</call><|im_end|>'
    assert trained(made(EMPTY_SHOWN), ANSWERS) == "\n</think>\n\nyes<|im_end|>"


NOTHINK = turns(
    "<|im_start|>assistant\n<think>\n\n</think>\n\n{{ m.content.split('</think>')[-1].lstrip() }}",
    "<|im_start|>assistant\n<think>\n\n</think>\n\n",
)


def test_a_prompt_that_closed_the_thinking_takes_empty_thinking_only():
    template = made(NOTHINK)
    for answer in ("yes", "<think>\n\n</think>\n\nyes", "<think></think>yes"):
        assert trained(template, {"role": "assistant", "content": answer}) == "yes<|im_end|>"
    for message in THINKS:
        with pytest.raises(CascadeError, match="thinking"):
            trained(template, message)


def test_what_follows_the_end_of_a_turn_is_not_trained():
    """Phi ends a turn by <|end|>, and a conversation by the tokenizer's EOS token besides."""
    phi = (
        turns("<|im_start|>assistant\n{{ m.content }}", end="<|end|>\n")
        + "{{ '' if add_generation_prompt else eos_token }}"
    )
    assert trained(made(phi, ["<|end|>"], eos="<|endoftext|>"), ANSWERS) == "yes<|end|>"


def test_a_template_without_an_end_of_turn_keeps_its_form():
    """GLM ends a turn where the next role begins."""
    glm = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think></think>\n{% endif %}"
    glm += "{{ m.content }}\n{{ m.tool_calls or '' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    template = made(glm, eos="<|endoftext|>")
    assert trained(template, ANSWERS) == "\n<think></think>\nyes<|endoftext|>"
    with pytest.raises(CascadeError, match="call"):  # nobody knows where a call would end
        trained(template, {"role": "assistant", "content": "", "tool_calls": [CALL]})


def test_a_template_that_reads_parts_alone_is_refused():
    """It would ask nothing at all: the text of every message is left out."""
    parts = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}"
    )
    with pytest.raises(CascadeError, match="native"):
        made(parts + "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}")

"""Every form in which data sets write messages, calls and tools becomes one, and what cannot be rendered is refused."""

import json

import pytest

from cascade_rl.data.messages import normal_messages, tools_of
from cascade_rl.types import CascadeError

USER = {"role": "user", "content": "go"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def assistant(content="", **more):
    return {"role": "assistant", "content": content, **more}


def one(message):
    """``message`` in the one form, after a user's turn."""
    return normal_messages([USER, message])[1]


@pytest.mark.parametrize(
    ("given", "role"),
    [
        *((name, "user") for name in ("user", "human")),
        *((name, "assistant") for name in ("assistant", "gpt", "model", "chatgpt", "bot")),
        *((name, "system") for name in ("system", "developer")),
        *((name, "tool") for name in ("tool", "function", "ipython", "observation", "tool_response")),
    ],
)
def test_roles_have_one_name(given, role):
    message = {"role": role, "content": "x"}
    assert normal_messages([{"role": given, "content": "x"}]) == (message,)
    assert normal_messages([{"from": given, "value": "x"}]) == (message,)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking", "think", "thought"])
def test_reasoning_has_one_name(name):
    assert one(assistant("4", **{name: "2+2"})) == assistant("4", reasoning_content="2+2")
    assert one(assistant("4", **{name: ""})) == assistant("4")
    assert one(assistant("4", **{name: None})) == assistant("4")


def test_reasoning_given_twice_counts_once_where_it_is_the_same():
    assert one(assistant("4", reasoning="hm", reasoning_content="hm\n")) == assistant("4", reasoning_content="hm\n")
    inline = "<think>\nhm\n</think>\n\n4"
    assert one(assistant(inline, thinking="hm")) == assistant(inline)
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "4"}]
    assert one(assistant(parts)) == assistant("4", reasoning_content="hm")
    for twice in (assistant("4", reasoning="a", thinking="b"), assistant(inline, thinking="other")):
        with pytest.raises(CascadeError, match="reasoning"):
            one(twice)


@pytest.mark.parametrize(
    "message",
    [
        assistant(tool_calls=[CALL]),
        assistant(None, tool_calls=[CALL]),
        {"role": "assistant", "tool_calls": [CALL]},
        assistant(tool_calls=[{"function": {"name": "f", "arguments": '{"x": 1}'}}]),
        assistant(tool_calls=[{"function": {"name": "f", "arguments": {"x": 1}, "output": None}, "index": None}]),
        assistant(tool_calls=json.dumps([CALL])),
        assistant(tool_calls=CALL),
        assistant(tool_calls=[json.dumps(CALL)]),
        assistant(tool_calls=[{"name": "f", "arguments": {"x": 1}}]),
        assistant(tool_calls=[{"name": "f", "args": {"x": 1}, "type": "tool_call"}]),
        assistant(tool_calls=[{"name": "f", "parameters": {"x": 1}}]),
        assistant(function_call={"name": "f", "arguments": '{"x": 1}'}),
        {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
        {"from": "gpt", "value": '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'},
        {"from": "gpt", "value": "<tool_call>\n{'arguments': {'x': 1}, 'name': 'f'}\n</tool_call>\n"},
    ],
)
def test_every_form_of_a_call_is_the_same_call(message):
    assert one(message) == assistant(tool_calls=[CALL])
    assert normal_messages(normal_messages([USER, message])) == (USER, assistant(tool_calls=[CALL]))


def test_calls_after_text_and_one_after_another():
    two = '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>' * 2
    assert one(assistant(f"<think>\nhm\n</think>\n\nSure.\n{two}")) == assistant(
        "<think>\nhm\n</think>\n\nSure.", tool_calls=[CALL, CALL]
    )
    call = {"from": "function_call", "value": json.dumps(CALL["function"])}
    messages = normal_messages([USER, assistant("Sure."), call, call, {"from": "observation", "value": "3"}])
    assert messages[1:] == (assistant("Sure.", tool_calls=[CALL, CALL]), {"role": "tool", "content": "3"})


def test_calls_given_twice_count_once_where_they_are_the_same():
    text = 'Sure.\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
    assert one(assistant(text, tool_calls=[CALL])) == assistant("Sure.", tool_calls=[CALL])
    with pytest.raises(CascadeError, match="calls"):
        one(assistant(text, tool_calls=[{"name": "g"}]))


def test_a_call_without_arguments_and_nulls_within_some():
    for nothing in ({}, {"arguments": None}, {"arguments": ""}, {"arguments": "{}"}, {"arguments": "null"}):
        call = one(assistant(tool_calls=[{"name": "f", **nothing}]))["tool_calls"][0]
        assert call["function"] == {"name": "f", "arguments": {}}
    spelt = one(assistant(tool_calls=[{"name": "f", "arguments": '{"x": null}'}]))  # a null that somebody wrote
    assert spelt["tool_calls"][0]["function"]["arguments"] == {"x": None}


def test_text_about_calls_is_no_call():
    for text in ("Write <tool_call> first.", "</tool_call>", "<think>\n<tool_call>{}</tool_call></think>"):
        assert one(assistant(text)) == assistant(text)


def test_contents_in_parts_and_results_that_are_no_text():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "image": None}]
    assert normal_messages([{"role": "user", "content": parts}]) == ({"role": "user", "content": "ab"},)
    for content, text in (({"a": 1}, '{"a": 1}'), ([1, 2], "[1, 2]"), ("<tool_response>\n3\n</tool_response>", "3")):
        assert one({"role": "tool", "content": content})["content"] == text


def test_other_keys_of_a_message_stay():
    message = {"role": "tool", "content": "1", "tool_call_id": "7", "name": "f"}
    assert one({**message, "weight": None}) == message


@pytest.mark.parametrize(
    ("message", "word"),
    [
        (assistant(None), "neither"),
        ({"role": "user", "content": None}, "content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, "image_url"),
        ({"role": "user", "content": "x", "images": ["a.png"]}, "images"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "tool_calls"),
        ({"role": "user", "content": "x", "reasoning": "hm"}, "reasoning"),
        ({"role": "user", "content": 3}, "int"),
        ({"role": "tool", "content": None}, "content"),
        ({"content": "x"}, "role"),
        ("x", "str"),
        (None, "NoneType"),
        (assistant("x", thinking=True), "thinking"),
        (assistant(tool_calls="f(1)"), "tool_calls"),
        (assistant(tool_calls=[{"arguments": {}}]), "name"),
        (assistant(tool_calls=[{"name": "f", "arguments": [1]}]), "list"),
        (assistant(tool_calls=[{"name": "f", "arguments": "x = 1"}]), "JSON"),
        (assistant("<tool_call>\nnot JSON\n</tool_call>"), "JSON"),
        ({"from": "function_call", "value": "f(1)"}, "JSON"),
    ],
)
def test_what_cannot_be_rendered_is_refused_by_its_number(message, word):
    with pytest.raises(CascadeError, match=f"message 1.*{word}"):
        one(message)


TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    "value",
    [
        [TOOL],
        json.dumps([TOOL]),
        [json.dumps(TOOL)],
        TOOL,
        [TOOL["function"]],
        json.dumps([TOOL["function"]]),
        [{"type": "function", **TOOL["function"]}],
        [{"function": {**TOOL["function"], "strict": None}, "type": "function"}],
        [{**TOOL["function"], "parameters": json.dumps({"type": "object"})}],
    ],
)
def test_tools_have_one_form(value):
    assert tools_of(value) == (TOOL,)
    assert tools_of(tools_of(value)) == (TOOL,)


def test_no_tools_and_what_are_none():
    for nothing in (None, [], (), "", " ", "[]", [None]):
        assert tools_of(nothing) == ()
    for wrong in ("calculator", ["calculator"], 3, [{"description": "d"}], [3]):
        with pytest.raises(CascadeError, match="tools"):
            tools_of(wrong)

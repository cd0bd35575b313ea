"""Every form in which data sets write messages, calls and tools becomes one, and what cannot be rendered is refused."""

import json

import pytest

from cascade_rl.data.messages import normal_messages, offered_tools, tools_of
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


# --- Faults found by reading more data sets ---------------------------------------------------------------------------


def arguments(**call):
    """The arguments of the one call that ``call`` becomes."""
    (found,) = one(assistant(tool_calls=[call]))["tool_calls"]
    return found["function"]["arguments"]


@pytest.mark.parametrize(
    "message",
    [
        assistant(tool_calls=[{"name": "f", "arguments": '{"x": "\\ud83d"}'}]),
        assistant(tool_calls='[{"name": "f", "arguments": {"\\udc00": 1}}]'),
        assistant('<tool_call>\n{"name": "f", "arguments": {"x": "\\ud83d"}}\n</tool_call>'),
        {"role": "function_call", "content": '{"name": "f", "arguments": {"x": "\\ud83d"}}'},
    ],
)
def test_half_a_surrogate_pair_in_json_is_refused(message):
    with pytest.raises(CascadeError, match="surrogate"):
        one(message)


def test_half_a_surrogate_pair_in_tools_is_refused():
    for text in ('[{"name": "f", "description": "\\ud83d"}]', '{"name": "f"}\n{"name": "\\ud83d"}'):
        with pytest.raises(CascadeError, match="surrogate"):
            tools_of(text)
    assert tools_of('[{"name": "f", "description": "\\ud83d\\ude00"}]')[0]["function"]["description"] == "😀"


@pytest.mark.parametrize(
    "call",
    [
        {"function": {"name": "f"}, "arguments": {"x": 1}},
        {"function": {"name": "f", "arguments": {}}, "args": {"x": 1}},
        {"function": "f", "input": {"x": 1}},
        {"function": '{"name": "f", "arguments": {"x": 1}}'},
        {"name": "f", "arguments": {}, "parameters": {"x": 1}},
        {"name": "f", "arguments": "{}", "input": '{"x": 1}'},
        {"name": "f", "arguments": {"x": 1}, "args": '{"x": 1}'},
        {"name": "f", "arguments": {"x": 1}, "id": "1", "type": "function", "index": 0, "result": "3"},
        {"name": "f", "arguments": json.dumps(json.dumps({"x": 1}))},
        {"name": "f", "kwargs": None, "arguments": {"x": 1}},
    ],
)
def test_no_arguments_of_a_call_are_lost(call):
    assert arguments(**call) == {"x": 1}


@pytest.mark.parametrize(
    ("call", "word"),
    [
        ({"name": "f", "kwargs": {"x": 1}}, "kwargs"),
        ({"function": {"name": "f", "kwargs": {"x": 1}}}, "kwargs"),
        ({"function": {"name": "f"}, "kwargs": {"x": 1}}, "kwargs"),
        ({"name": "f", "arguments": {"x": 1}, "parameters": {"x": 2}}, "twice"),
        ({"name": "f", "arguments": {"x": 1}, "parameters": {"x": True}}, "twice"),
        ({"function": {"name": "f", "arguments": {"x": 1}}, "arguments": {"y": 1}}, "twice"),
        ({"name": "g", "function": {"name": "f"}}, "names"),
        ({"name": "f", "arguments": {"x": float("nan")}}, "JSON"),
        ({"name": "f", "arguments": '{"x": Infinity}'}, "JSON"),
        ({"name": "f", "arguments": '"x = 1"'}, "JSON"),
    ],
)
def test_a_call_of_two_meanings_or_none_is_refused(call, word):
    with pytest.raises(CascadeError, match=word):
        arguments(**call)


def test_function_call_beside_tool_calls_is_compared():
    old = {"name": "f", "arguments": '{"x": 1}'}
    assert one(assistant(tool_calls=[CALL], function_call=old)) == assistant(tool_calls=[CALL])
    for other in ({"name": "g"}, {"name": "f", "arguments": {"x": 2}}):
        with pytest.raises(CascadeError, match="calls"):
            one(assistant(tool_calls=[CALL], function_call=other))


@pytest.mark.parametrize(
    "nothing",
    [
        {"tool_calls": value}
        for value in (False, "null", "[]", "", " ", "{}", [], {}, [None], [{}], [{"id": None, "function": {"name": None}}],
                      [{"function": {}}], '[{"id": null, "function": {"name": null, "arguments": null}}]')
    ]
    + [{"function_call": {"name": None, "arguments": None}}, {"function_call": "null"}],
)  # fmt: skip
def test_empty_forms_of_calls_are_none(nothing):
    assert one(assistant("x", **nothing)) == assistant("x")
    assert one({"role": "user", "content": "x", **nothing}) == {"role": "user", "content": "x"}


def test_empty_forms_of_tools_are_none():
    for nothing in ({}, "{}", "null", [{"type": None, "function": None}], [{}], '[{"type": null, "function": null}]',
                    [{"type": None, "function": {"name": None, "description": None}}]):  # fmt: skip
        assert tools_of(nothing) == ()


def test_a_raw_line_break_in_json_is_read():
    assert arguments(name="f", arguments='{"code": "a\nb"}') == {"code": "a\nb"}


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ('<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>', ""),
        ('<think>\nhm\n</think>\n{"name": "f", "arguments": {"x": 1}}', "<think>\nhm\n</think>\n\n"),
        ('<think>\nhm\n</think>\n<tool_call>{"name": "f", "args": {"x": 1}}</tool_call>', "<think>\nhm\n</think>\n\n"),
    ],
)
def test_roles_of_calls_take_thinking_and_tags(value, content):
    for role in ("function_call", "tool_call"):
        assert one({"from": role, "value": value}) == assistant(content, tool_calls=[CALL])


def test_roles_of_calls_take_text_parts():
    parts = [{"type": "text", "text": json.dumps(CALL["function"])}]
    assert one({"role": "tool_call", "content": parts}) == assistant(tool_calls=[CALL])


def test_roles_of_calls_keep_reasoning_beside_them():
    message = {"role": "tool_call", "content": json.dumps(CALL["function"]), "reasoning": "hm"}
    assert one(message) == assistant(reasoning_content="hm", tool_calls=[CALL])
    with pytest.raises(CascadeError, match="thinking"):
        normal_messages([USER, assistant("Sure."), message])
    with pytest.raises(CascadeError, match="no call"):
        one({"role": "tool_call", "content": "[]"})


def test_tools_may_be_one_object_a_line():
    other = {**TOOL, "function": {"name": "g"}}
    assert tools_of(json.dumps(TOOL) + "\n\n" + json.dumps(other["function"]) + "\n") == (TOOL, other)


def test_nulls_in_json_text_of_tools_stay():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"default": None, "enum": ["a", None]}}}
    for text in (
        json.dumps([tool]),
        [json.dumps(tool)],
        json.dumps(tool["function"]),
        json.dumps({"id": None, **tool}),
    ):
        assert tools_of(text) == (tool,)
        assert tools_of(tools_of(text), nulls=True) == (tool,)
    assert tools_of([{**tool, "strict": None}]) == (
        {"type": "function", "function": {"name": "f", "parameters": {"enum": ["a", None]}}},
    )


def test_tools_that_json_cannot_write_are_refused():
    with pytest.raises(CascadeError, match="JSON"):
        tools_of([{"name": "f", "parameters": {"maximum": float("inf")}}])


def test_several_results_in_a_message_are_several_messages():
    blocks = "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n3\n</tool_response>\n"
    found = normal_messages([{"from": "tool", "value": blocks}])
    assert found == ({"role": "tool", "content": "1"}, {"role": "tool", "content": "2\n3"})
    assert normal_messages(found) == found
    for text in (f"both: {blocks}", f"{blocks}end"):
        assert normal_messages([{"from": "tool", "value": text}]) == ({"role": "tool", "content": text},)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (["a", "b"], '["a", "b"]'),
        ([{"text": "x", "score": 3}], '[{"text": "x", "score": 3}]'),
        ([], "[]"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "text", "text": "a"}, "b"], '[{"type": "text", "text": "a"}, "b"]'),
        ("", ""),
    ],
)
def test_results_in_lists_lose_nothing(content, text):
    assert one({"role": "tool", "content": content})["content"] == text


def test_a_result_that_json_cannot_write_is_refused():
    with pytest.raises(CascadeError, match="JSON"):
        one({"role": "tool", "content": {"x": b"1"}})


VALID = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    "text",
    [
        f"{VALID}\nCalled it.",
        f"text {VALID} and {VALID}",
        f"<think>\nhm\n</think>\n{VALID}\nCalled it.",
        f"Write <tool_call> first: {VALID} done",
        f"Sure. {VALID.removesuffix('</tool_call>')}",
    ],
)
def test_a_call_that_does_not_close_the_turn_is_refused(text):
    with pytest.raises(CascadeError, match="close"):
        one(assistant(text))


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\n{VALID} would do\n</think>\n\nNo.",
        f"<think>\n{VALID} would",
        f"Like so:\n```\n{VALID}\n```\nthen stop.",
        f"Write `{VALID}` there.",
        'Write <tool_call>{"name": <name>}</tool_call> there.',
        "<tool_call></tool_call> are the tags.",
    ],
)
def test_text_that_talks_about_calls_stays(text):
    assert one(assistant(text)) == assistant(text)


def test_reasoning_loses_its_own_tags():
    for text in ("<think>\nhm\n</think>", "<think>hm</think>\n", "<think>\nhm", "hm\n</think>"):
        assert one(assistant("4", reasoning_content=text)) == assistant("4", reasoning_content="hm")
    assert one(assistant("4", reasoning=" \n")) == assistant("4")
    assert one(assistant("<think>\nhm\n</think>\n\n4", reasoning="<think>hm</think>"))["content"].endswith("4")


def test_parts_of_reasoning_are_read_or_refused():
    text = {"type": "text", "text": "4"}
    for part in (
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}], "summary": []},
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "reasoning", "text": "hm"},
    ):
        assert one(assistant([part, text])) == assistant("4", reasoning_content="hm")
    assert one(assistant([{"type": "reasoning", "id": "1", "summary": []}, text])) == assistant("4")
    for part in ({"type": "reasoning", "encrypted_content": "x"}, {"type": "reasoning", "summary": [{"a": 1}]}):
        with pytest.raises(CascadeError, match="reasoning"):
            one(assistant([part, text]))


def test_text_after_reasoning_has_no_line_breaks_before_it():
    assert one(assistant("\n\nyes", reasoning="hm")) == assistant("yes", reasoning_content="hm")
    assert one(assistant("\n\nyes")) == assistant("\n\nyes")


def test_roles_may_have_capitals():
    for given, role in (("User", "user"), ("ASSISTANT", "assistant"), ("Human", "user"), ("GPT", "assistant")):
        assert normal_messages([{"role": given, "content": "x"}]) == ({"role": role, "content": "x"},)
    assert one({"role": "Function_Call", "content": json.dumps(CALL["function"])}) == assistant(tool_calls=[CALL])
    assert normal_messages([{"role": "Critic", "content": "x"}])[0]["role"] == "Critic"


def test_only_a_system_message_brings_tools():
    system = {"role": "system", "content": "S"}
    for name in ("tools", "functions"):
        for value in ([TOOL["function"]], json.dumps([TOOL])):
            messages = normal_messages([{**system, name: value}])
            assert messages == ({**system, "tools": [TOOL]},)
            assert offered_tools(messages, ()) == ((system,), (TOOL,))
            assert offered_tools(messages, (TOOL,)) == ((system,), (TOOL,))
            with pytest.raises(CascadeError, match="tools"):
                offered_tools(messages, ({**TOOL, "function": {"name": "g"}},))
        assert normal_messages([{**system, name: []}, {**USER, name: "[]"}]) == (system, USER)
        with pytest.raises(CascadeError, match="tools"):
            one({**USER, name: [TOOL]})

"""What one row asks: formats, tools, system messages, and what is refused because it would vanish."""

import json

import pytest

from cascade_rl.data.asking import columns_in, formatted
from cascade_rl.data.refusals import Refusals
from cascade_rl.data.sources import load_rows, to_conversations, to_prompts
from cascade_rl.recipe import DataSource
from cascade_rl.rows import present
from cascade_rl.types import CascadeError

TALK = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
ASKED = {"role": "user", "content": "a"}
TOOL = {"type": "function", "function": {"name": "f"}}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def prompt_of(row, **source):
    (prompt,) = to_prompts([present(row)], DataSource(source="x", **source))
    return prompt


def answer_of(row):
    (made,) = to_conversations([present(row)], DataSource(source="x"))
    return made.messages[-1]


def refused(row, read=to_prompts, **source):
    refusals = Refusals()
    assert list(read([present(row)], DataSource(source="x", **source), refusals=refusals)) == []
    (fault,) = refusals.faults
    assert "row 0 of x" in fault
    return fault


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_nested_null_is_absent_in_a_format_string(tmp_path, kind):
    rows = [{"meta": {"title": "T", "sub": "S"}}, {"meta": {"title": "U"}}]
    if kind == "jsonl":
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    source, refusals = DataSource(source=f"rows.{kind}", prompt="{meta[title]} {meta[sub]}"), Refusals()
    (prompt,) = to_prompts(load_rows(source, tmp_path / "r.yaml"), source, refusals=refusals)
    assert prompt.messages[0]["content"] == "T S"
    assert "row 1" in refusals.faults[0]
    assert "sub" in refusals.faults[0]


def test_format_strings_are_those_of_python():
    row = {"a": 1.5, "b": {"c": [2, 3]}, "w": 6, "d": "x"}
    text = "{a:.2f} {b[c][1]} {d!r:>{w}} {{a}}"
    assert formatted(text, row) == text.format_map(row)
    assert columns_in(text) == {"a", "b", "d"}
    for wrong, error in (("{no}", KeyError), ("{}", IndexError), ("{a.no}", AttributeError), ("{d:.2f}", ValueError)):
        with pytest.raises(error):
            formatted(wrong, row)


@pytest.mark.parametrize(
    "row", [{"conversations": TALK[:1]}, {"prompt": "a"}, {"messages": [ASKED]}, {"prompt": [ASKED], "tools": None}]
)
def test_functions_are_offered_beside_any_question(row):
    assert prompt_of({**row, "functions": [{"name": "f"}]}).tools == (TOOL,)
    assert prompt_of({**row, "functions": []}).tools == ()
    assert "functions" in refused({**row, "functions": "sin, cos"})


def test_functions_beside_a_format_string():
    row = {"q": "a", "functions": '[{"name": "f"}]'}
    assert prompt_of(row, prompt="{q}").tools == (TOOL,)
    assert prompt_of(row, prompt="{q} {functions}").tools == ()  # they are in the prompt's text already


@pytest.mark.parametrize("row", [{"conversations": TALK[:1]}, {"prompt": "a"}, {"messages": [ASKED]}])
def test_a_system_column_is_the_system_message(row):
    system = {"role": "system", "content": "Be kind."}
    assert prompt_of({**row, "system": "Be kind."}).messages == (system, ASKED)
    assert prompt_of({**row, "system": ""}).messages == (ASKED,)
    assert "system" in refused({**row, "system": {"os": "linux"}})
    twice = [{"from": "system", "value": "Be kind."}, *TALK[:1]]
    assert prompt_of({"conversations": twice, "system": "Be kind."}).messages == (system, ASKED)
    assert "system" in refused({"conversations": twice, "system": "Be rude."})


def test_calls_and_thoughts_beside_a_response_are_learnt():
    row = {"prompt": "a", "response": "b", "tool_calls": [{"name": "f", "arguments": '{"x": 1}'}], "thought": "hm"}
    assert answer_of(row) == {"role": "assistant", "content": "b", "reasoning_content": "hm", "tool_calls": [CALL]}
    assert answer_of({**row, "response": None})["tool_calls"] == [CALL]
    assert answer_of({**row, "tool_calls": []}) == {"role": "assistant", "content": "b", "reasoning_content": "hm"}
    assert "call" in refused({**row, "tool_calls": [{"arguments": {}}]}, to_conversations)


@pytest.mark.parametrize("name", ["image", "images", "audio", "videos"])
def test_media_of_a_row_are_refused_and_not_dropped(name):
    row = {"prompt": "what is this?", "response": "a cat"}
    for read in (to_prompts, to_conversations):
        assert name in refused({**row, name: ["a.bin"]}, read)
        assert name in refused({"q": "a", "response": "b", name: {"bytes": "x"}}, read, prompt="{q}")
    assert prompt_of({**row, name: []}).messages[0]["content"] == "what is this?"
    assert prompt_of({"q": "a", name: "swe/container"}, prompt="{q} in {" + name + "}").messages


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": ""},
        {"prompt": "  \n"},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "system", "content": "Be kind."}]},
        {"prompt": [{"role": "user", "content": []}], "system": "Be kind."},
    ],
)
def test_an_empty_question_is_refused(row):
    refused(row)


def test_a_tools_result_is_a_question():
    messages = [{"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "3"}]
    assert prompt_of({"messages": messages}).messages[-1]["content"] == "3"


@pytest.mark.parametrize("name", ["messages", "conversations"])
def test_messages_as_json_text_are_parsed(name):
    assert prompt_of({name: json.dumps([ASKED])}).messages == (ASKED,)
    assert prompt_of({name: str([ASKED])}).messages == (ASKED,)  # as Python prints it
    assert prompt_of({name: "[1, 2] has how many items?"}).messages[0]["content"].startswith("[1, 2] has")
    assert prompt_of({name: "[]", "prompt": "a"}).messages == (ASKED,)
    assert name in refused({name: '[{"role": "user", "content": "cut'})
    assert "pair" in refused({name: '[{"role": "user", "content": "\\ud83d"}]'})
    refused({name: '[{"role": "user", "content": ' + "[" * 100_000})
    assert prompt_of({"prompt": json.dumps([ASKED])}).messages[0]["content"] == json.dumps([ASKED])


def test_empty_messages_mean_the_prompt():
    assert prompt_of({"messages": [], "prompt": "a"}).messages == (ASKED,)
    with pytest.raises(CascadeError, match="row 0"):
        to_prompts([{"messages": []}], DataSource(source="x"))


def test_calls_that_are_no_answer_do_not_hide_a_question():
    """A reward's reference may stand in ``tool_calls``, in any form: the row still asks what it asks."""
    from cascade_rl.data.questions import questions

    row = {"prompt": "a", "tool_calls": "weather(city)", "reasoning": 3}
    assert questions(row, DataSource(source="x"), 0) == ["a"]
    assert questions({**row, "response": "b"}, DataSource(source="x"), 0) == ["a"]
    assert prompt_of(row).columns["tool_calls"] == "weather(city)"


@pytest.mark.parametrize("switch", ["on", "off", "On", True, False, 1, 0.5])
@pytest.mark.parametrize("name", ["reasoning", "think"])
def test_a_switch_is_no_reasoning(name, switch):
    """NVIDIA's sets say ``reasoning: on`` or ``off`` beside an answer."""
    row = {"prompt": "a", "response": "b", name: switch}
    assert answer_of(row) == {"role": "assistant", "content": "b"}
    thinking = "<think>\nhm\n</think>\n\nb"
    assert answer_of({**row, "response": thinking})["content"] == thinking


@pytest.mark.parametrize(
    ("value", "mode"), [("on", True), ("off", False), (" OFF ", False), (True, True), (None, None)]
)
def test_a_rows_mode_may_be_on_or_off(value, mode):
    assert prompt_of({"prompt": "a", "thinking": value}).thinking is mode


@pytest.mark.parametrize("value", ["yes", "", "I think so.", 1, 0, [], {}])
def test_another_mode_is_refused(value):
    assert "thinking" in refused({"prompt": "a", "thinking": value})


def test_a_container_image_is_no_media():
    """Rows of software engineering name where their tests run."""
    row = {"prompt": "mend it", "response": "done", "image": "swebench/sweb.eval.x86_64.django-11099:latest"}
    assert prompt_of(row).columns["image"] == row["image"]
    assert answer_of(row)["content"] == "done"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "", "response": "x"},
        {"prompt": " \n", "response": "x"},
        {"messages": [{"role": "system", "content": "S"}, {"role": "assistant", "content": "Welcome."}]},
        {"messages": [{"role": "assistant", "content": "Welcome."}]},
    ],
)
def test_an_answer_to_nothing_is_refused_by_check_too(row):
    assert "asks nothing" in refused(row, to_conversations)


def test_an_answer_may_be_one_message():
    row = {"prompt": "a", "response": {"role": "assistant", "content": "b", "reasoning": "hm"}}
    assert answer_of(row) == {"role": "assistant", "content": "b", "reasoning_content": "hm"}
    assert "assistant" in refused({**row, "response": {"text": "b"}}, to_conversations)

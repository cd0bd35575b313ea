"""Every layout of preference pairs becomes the same pair, and what is none is named with its row."""

import re

import pytest

from cascade_rl.data.preferences import Pair, answer_of, read_pairs, to_pairs
from cascade_rl.recipe import DataSource
from cascade_rl.rewarding.response import response_text
from cascade_rl.types import CascadeError

SOURCE = DataSource(source="pairs.jsonl")
USER = {"role": "user", "content": "1+1?"}


def says(text, **more):
    return {"role": "assistant", "content": text, **more}


def pairs(*rows, **keys):
    return list(to_pairs(rows, DataSource(source="pairs.jsonl", **keys)))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "1+1?", "chosen": "2", "rejected": "3"},
        {"prompt": [USER], "chosen": "2", "rejected": "3"},
        {"messages": [USER], "chosen": "2", "rejected": "3"},
        {"prompt": [USER], "chosen": [says("2")], "rejected": [says("3")]},
        {"chosen": [USER, says("2")], "rejected": [USER, says("3")]},
        {"prompt": " 1+1?\n", "chosen": [USER, says("2")], "rejected": [USER, says("3")]},
        {"chosen": [USER, says("<think>\nhm\n</think>\n\n2")], "rejected": [USER, says("3", reasoning_content="hm")]},
        {"context": [USER], "response1": "2", "response2": "3", "overall_preference": -1},
        {"context": [USER], "response1": "3", "response2": "2", "overall_preference": 3},
        {"context": "1+1?", "response1": "2", "response2": "3", "overall_preference": -3.0},
        {"prompt": "1+1?", "response1": "3", "response2": "2", "overall_preference": 2},
    ],
)
def test_layouts(row):
    assert pairs(row) == [Pair("pairs.jsonl:0", (USER,), "2", "3")]


def test_columns_and_a_format_string_bring_the_rest():
    row = {"question": "1+1", "good": "2", "bad": "3", "subset": "sums"}
    (pair,) = pairs(
        {**row, "chosen": row["good"], "rejected": row["bad"], "category": row["subset"]}, prompt="{question}?"
    )
    assert pair == Pair("pairs.jsonl:0", (USER,), "2", "3", "sums")


def test_a_conversation_that_both_sides_share_stays_as_it_is():
    before = [{"role": "system", "content": "Be brief."}, USER, says("2"), {"role": "user", "content": "and 2+2?"}]
    (pair,) = pairs({"chosen": [*before, says("4")], "rejected": [*before, says("5")]})
    assert pair.messages == tuple(before)
    assert pair.conversation("4") == (*before, says("4"))


def test_a_prompt_and_a_conversation_that_goes_on_from_it():
    more = [says("2"), {"role": "user", "content": "sure?"}]
    (pair,) = pairs({"prompt": "1+1?", "chosen": [*more, says("yes")], "rejected": [*more, says("no")]})
    assert pair.messages == (USER, *more)


def test_ties_are_left_out_not_refused():
    tie = {"context": [USER], "response1": "2", "response2": "2", "overall_preference": 0}
    assert pairs(tie) == [None]


@pytest.mark.parametrize("text", ["2", "<think>a</think>\n\n2\n", "a</think>b</think>\nc", "<think>unfinished", " 2 "])
def test_the_answer_is_what_rlhf_scores(text):
    assert answer_of(text) == response_text(text, thinking=False)


PLAIN = {"prompt": "1+1?", "chosen": "2", "rejected": "3"}
STEERED = {"context": [USER], "response1": "2", "response2": "3", "overall_preference": 1}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**PLAIN, "rejected": "2"}, "equal"),
        ({**PLAIN, "chosen": "<think>a</think>\n3"}, "equal"),
        ({**STEERED, "response2": "2"}, "equal"),
        ({**PLAIN, "chosen": " \n"}, "chosen"),
        ({**PLAIN, "rejected": "<think>all thought</think>"}, "rejected"),
        ({"prompt": "1+1?", "chosen": "2"}, "`rejected`"),
        ({**PLAIN, "chosen": None}, "`chosen`"),
        ({"question": "1+1?"}, "`chosen`"),
        ({"chosen": "2", "rejected": "3"}, "`prompt`"),
        ({**PLAIN, "chosen": 2}, "int"),
        ({**PLAIN, "chosen": [says(None)]}, "chosen"),
        ({**PLAIN, "chosen": ["2"]}, "chosen"),
        ({**PLAIN, "chosen": [USER]}, "assistant"),
        (
            {"chosen": [USER, says("2")], "rejected": [{"role": "user", "content": "1+2?"}, says("3")]},
            "message 0",
        ),
        (
            {"chosen": [USER, says("2")], "rejected": [USER, says("a"), USER, says("3")]},
            "3",
        ),
        ({"prompt": "2+2?", "chosen": [USER, says("2")], "rejected": [USER, says("3")]}, "`prompt`"),
        ({**PLAIN, "prompt": [USER, says("hm")]}, "assistant"),
        ({"context": [USER], "response1": "2", "response2": "3"}, "`overall_preference`"),
        ({**STEERED, "overall_preference": 4}, "overall_preference"),
        ({**STEERED, "overall_preference": "1"}, "overall_preference"),
        ({**STEERED, "response1": None}, "`response1`"),
        ({**STEERED, "context": []}, "`messages`"),
    ],
)
def test_what_is_no_pair_is_named_with_its_row(row, message):
    with pytest.raises(CascadeError, match=re.escape(message)) as caught:
        pairs(PLAIN, row)
    assert "row 1 of pairs.jsonl" in str(caught.value)


def test_a_benchmark_may_have_pairs_without_use():
    equal, empty = {**PLAIN, "rejected": "2"}, {**PLAIN, "chosen": ""}
    found = list(read_pairs([equal, empty, PLAIN], SOURCE))
    assert [bool(pair.fault) for pair in found] == [True, True, False]


def test_one_message_object_is_an_answer():
    row = {"prompt": "1+1?", "chosen": says("2"), "rejected": {"role": "Assistant", "content": "3"}}
    assert pairs(row) == [Pair("pairs.jsonl:0", (USER,), "2", "3")]


def test_reasoning_beside_an_answer_or_in_it_gives_one_answer():
    inline, beside = says("<think>\nhm\n</think>\n\na\n"), says("\n\na\n", reasoning="hm")
    found = [pairs({"prompt": "1+1?", "chosen": [side], "rejected": "b"})[0].chosen for side in (inline, beside)]
    assert found == ["a", "a"]


@pytest.mark.parametrize(
    "keys",
    [
        {"tools": [{"name": "f"}]},
        {"tools": '[{"name": "f"}]'},
        {"functions": [{"name": "f"}], "messages": [USER]},
        {"prompt": [{"role": "system", "content": "S", "tools": [{"name": "f"}]}, USER]},
    ],
)
def test_pairs_with_tools_are_refused(keys):
    with pytest.raises(CascadeError, match="row 0.*tools"):
        pairs({**PLAIN, **keys})


def test_a_helpsteer_row_with_tools_is_refused():
    with pytest.raises(CascadeError, match="row 0.*tools"):
        pairs({**STEERED, "tools": [{"name": "f"}]})


def test_empty_tools_are_no_tools():
    for nothing in ([], "[]", "", {}):
        assert pairs({**PLAIN, "tools": nothing})[0].chosen == "2"


def test_shared_messages_may_differ_in_ids_and_reasoning():
    call = {"name": "f", "arguments": {"x": 1}}
    sides = {}
    for name, answer in (("chosen", "2"), ("rejected", "3")):
        sides[name] = [
            {**USER, "id": name},
            says("<think>\nhm\n</think>\n\na", tool_calls=[{**call, "id": name}])
            if name == "chosen"
            else says("a", reasoning="well", tool_calls=[call]),
            {"role": "tool", "content": "1", "tool_call_id": name},
            says(answer),
        ]
    assert [(pair.chosen, pair.rejected) for pair in pairs(sides)] == [("2", "3")]
    sides["chosen"][1]["tool_calls"][0]["arguments"] = {"x": 2}
    with pytest.raises(CascadeError, match="message 1"):
        pairs(sides)

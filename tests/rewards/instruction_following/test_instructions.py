"""Instruction following: every kind against responses made by hand, every row of the public sets, and hostile texts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rl.json_lines import text_lines
from rewards.instruction_following import is_ifbench_row, is_ifeval_row, verify
from rewards.instruction_following.registry import CHECKS, BadInstruction, arguments_of
from rewards.instruction_following.text import ruled_sentences, sentences, tokens

from .cases import CASES, IFBENCH_FORMATS, IFBENCH_TRAIN, IFBENCH_WORDS, IFEVAL

SHARED = os.environ.get("CASCADE_RL_SHARED_DATA", "")
ROWS = [(identifier, *row[:3]) for identifier, rows in CASES.items() for row in rows]


def test_all_kinds_are_here():
    assert (len(IFEVAL), len(IFBENCH_TRAIN), len(IFBENCH_WORDS) + len(IFBENCH_FORMATS)) == (25, 29, 58)
    assert set(CHECKS) == set(CASES)
    for identifier, rows in CASES.items():
        assert {row[2] for row in rows} == {True, False}, identifier


@pytest.mark.parametrize(("identifier", "kwargs", "response", "followed"), ROWS)
def test_verdicts(identifier, kwargs, response, followed):
    score = verify(response, instruction_id_list=[identifier], kwargs=[kwargs])
    assert (score.value, score.details["followed"]) == (float(followed), [followed])


@pytest.mark.skipif(not SHARED, reason="CASCADE_RL_SHARED_DATA is not set: the public sets are not here")
@pytest.mark.parametrize(("name", "rows", "kinds"), [("ifeval", 541, 25), ("ifbench", 300, 58)])
def test_every_row_of_the_public_sets_can_be_checked(name, rows, kinds):
    data = [json.loads(line) for line in text_lines(Path(SHARED) / f"{name}.jsonl")]
    seen = set()
    for row in data:
        columns = {"instruction_id_list": row["instruction_id_list"], "kwargs": row["kwargs"], "prompt": row["prompt"]}
        score = verify(row["prompt"], **columns)
        assert len(score.details["followed"]) == len(row["instruction_id_list"])
        assert verify("", **columns).value == 0
        seen |= set(row["instruction_id_list"])
    assert (len(data), len(seen)) == (rows, kinds)


# --- Rows ------------------------------------------------------------------------------------------------------------

TWO = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}


def test_all_instructions_of_a_row_must_be_followed():
    assert verify('"No commas."', **TWO).value == 1
    both = verify("No commas.", **TWO)
    assert (both.value, both.details["followed"]) == (0, [True, False])
    assert verify("No commas.", **TWO, partial=True).value == 0.5
    assert verify("Yes, none.", **TWO, partial=True).value == 0


def test_nothing_follows_nothing():
    assert verify("", **TWO).value == 0
    assert verify(" \n", instruction_id_list=["punctuation:no_comma"], kwargs=[{}]).value == 0


def test_loose_looks_past_a_first_line_a_last_line_and_asterisks():
    row = {"instruction_id_list": ["startend:quotation"], "kwargs": [{}]}
    for text in ('Here it is:\n"All."', '"All."\nHope it helps!', '**"All."**', 'Sure:\n*"All."*\nBye.'):
        assert verify(text, **row).value == 0
        assert verify(text, **row, loose=True).value == 1
    assert verify('No "all" of it', **row, loose=True).value == 0


def test_nulls_whole_floats_and_json_text_are_what_data_sets_hold():
    ids = ["length_constraints:number_words", "punctuation:no_comma"]
    kwargs = [{"num_words": 2.0, "relation": "at least", "keyword": None}, None]
    assert verify("two words", instruction_id_list=ids, kwargs=kwargs).value == 1
    assert verify("two words", instruction_id_list=ids, kwargs=json.dumps(kwargs)).value == 1
    assert verify("two words", instruction_id_list=ids, kwargs=[json.dumps(each) for each in kwargs]).value == 1


def test_the_prompt_stands_in_for_a_request_not_spelled_out():
    row = {"instruction_id_list": ["copy:copy"], "kwargs": [{}], "prompt": "Say this."}
    assert verify("say this.", **row).value == 1
    assert verify("say that.", **row).value == 0


@pytest.mark.parametrize(
    ("ids", "kwargs", "says"),
    [
        (["no:such_kind"], [{}], "no:such_kind"),
        (["keywords:frequency"], [{"keyword": "a"}], "frequency, relation"),
        (["punctuation:no_comma"], [{"colour": 1}], "colour"),
        (
            ["keywords:frequency"],
            [{"keyword": "a", "frequency": 1, "relation": "at most"}],
            "less than",
        ),
        (["punctuation:no_comma"], [], "list"),
        (["punctuation:no_comma"], "[{]", "JSON"),
        (["punctuation:no_comma"], ["[{]"], "JSON"),
        (["punctuation:no_comma"], [["N", 1]], "mapping"),
        (["count:words_japanese"], [{"N": 0}], "0-th"),
        (["keywords:existence"], [{"keywords": []}], "keywords"),
        (["last_word:last_word_sent"], [{"last_word": ""}], "last_word"),
        ([], [], "ids"),
        ("punctuation:no_comma", [{}], "ids"),
        (["keywords:letter_frequency"], [{"letter": 3, "let_frequency": 1, "let_relation": "at least"}], "letter"),
    ],
)
def test_rows_that_cannot_be_checked_are_the_rows_fault(ids, kwargs, says):
    with pytest.raises(BadInstruction, match=says):
        verify("text", instruction_id_list=ids, kwargs=kwargs)


# --- Any text --------------------------------------------------------------------------------------------------------


@given(st.text(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_text_has_a_verdict(text):
    for identifier, rows in CASES.items():
        assert CHECKS[identifier](text, **arguments_of(identifier, rows[0][0])) in (True, False), identifier


HOSTILE = [
    "a",
    " ",
    "\n",
    "*",
    "[",
    "<",
    "<<",
    "(",
    '"',
    "-",
    "a.",
    "A.",
    "? ",
    "\0",
    "漢",
    "😀",
    "a b ",
    "Question 1\n",
    "***",
    "\n\n",
    "p.\n",
    "`",
]


@pytest.mark.parametrize("part", HOSTILE)
def test_no_text_is_a_trap(part):
    """40 KB of each: a regular expression that goes back and forth would take hours, and the suite's limit end it."""
    text = part * (40_000 // len(part))
    for identifier, rows in CASES.items():
        CHECKS[identifier](text, **arguments_of(identifier, rows[0][0]))


# --- Sentences by rule -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It rains. I sleep.", ["It rains.", "I sleep."]),
        ("Dr. Smith met Mr. Jones. They spoke.", ["Dr. Smith met Mr. Jones.", "They spoke."]),
        ("Pi is 3.14 or so. See example.com for more.", ["Pi is 3.14 or so.", "See example.com for more."]),
        ("Wait... what? Yes!", ["Wait...", "what?", "Yes!"]),
        ('He said "go." Then left.', ['He said "go".', "Then left."]),
        ("No end", ["No end"]),
        ("J. R. Smith wrote. We read.", ["J. R. Smith wrote.", "We read."]),
        ("", []),
    ],
)
def test_sentences_by_rule(text, found):
    assert ruled_sentences(text) == found


# --- Sentences by Punkt, words by NLTK -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Dr. Smith met Mr. Jones. They spoke.", ["Dr. Smith met Mr. Jones.", "They spoke."]),
        ("Pi is 3.14. See p. 7, e.g. there", ["Pi is 3.14.", "See p. 7, e.g.", "there"]),
        ('He said "go." Then left.', ['He said "go."', "Then left."]),
        ("He said “go.” Then left. ”So", ["He said “go.” Then left.", "”So"]),
        ("Really?! Yes!", ["Really?!", "Yes!"]),
        ("Really?!", ["Really?", "!"]),
        ("  One.\n\n* two\n* three. Four", ["  One.", "* two\n* three.", "Four"]),
        ("", []),
    ],
)
def test_sentences_as_nltk_3_9_has_them(text, found):
    assert list(sentences(text)) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It's Ann's, isn't it?", "It 's Ann 's , is n't it ?"),
        ('"Go," he said. (So.)', "`` Go , '' he said . ( So . )"),
        ("now—or never – so -- well-known", "now—or never – so -- well-known"),
        ("'twas 'tis 'a' rock 'n' roll", "'t was 't is ' a ' rock 'n ' roll"),
        ("gonna pay $5.50, 10%...", "gon na pay $ 5.50 , 10 % ..."),
    ],
)
def test_words_as_nltk_3_9_has_them(text, found):
    assert list(tokens(text)) == found.split()


def test_rows_split_by_taxonomy():
    assert is_ifeval_row({"instruction_id_list": ["punctuation:no_comma", "keywords:existence"]})
    for ids in (["punctuation:no_comma", "copy:copy"], ["count:word_count_range"], ["no:such_kind"]):
        assert is_ifbench_row({"instruction_id_list": ids})
        assert not is_ifeval_row({"instruction_id_list": ids})

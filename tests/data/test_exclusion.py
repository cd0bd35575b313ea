"""Rows that are left out because something else has them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.data.exclusion import has_values, load_stage_rows, stages_data
from cascade_rl.data.ngrams import NgramIndex, Owner, words
from cascade_rl.data.questions import questions
from cascade_rl.recipe import DataSource, RewardModelStage, RlStage, SftStage
from cascade_rl.types import CascadeError

LONG = "a train leaves the station at noon and travels north at sixty kilometres an hour"


def write(folder, name, rows):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"source": name}


def stage(kind, name, data, **keys):
    common = {"name": name, "learning_rate": 1e-6, "steps": 2, "data": data, **keys}
    if kind is RlStage:
        common["reward"] = {"use": "a:b"}
    return kind.model_validate(common)


def left(folder, config, *others):
    """Prompts or questions that are left, with their places, and what was said."""
    said = []
    parts = list(load_stage_rows(config, folder / "r.yaml", stages_data(config, others), said.append))
    return [(n, row) for part in parts for n, row in zip(part.numbers, part.rows, strict=True)], said


def talk(*turns):
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]}


def test_sft_and_rl_are_strictly_disjoint(tmp_path):
    """As published (recipe 6.1): no RL prompt is asked in SFT, in whatever layout and spelling it lies there."""
    sft = [
        write(tmp_path, "chat.jsonl", [talk("Hello there", "Hi!", "And 1+1?", "2"), talk("What is  2+2?", "4")]),
        {**write(tmp_path, "plain.jsonl", [{"question": "3+3", "response": "6"}]), "prompt": "What is {question}?"},
    ]
    rows = [{"prompt": p} for p in ("what is 2+2?", "What is\n3+3?", "hello THERE", "What is 4+4?", "And 1+1?")]
    rl = stage(RlStage, "rl", [write(tmp_path, "rl.jsonl", rows)], exclude=[{"stage": "sft"}])
    teacher = stage(SftStage, "sft", sft)
    kept, said = left(tmp_path, rl, teacher, rl)
    assert [row["prompt"] for _, row in kept] == ["What is 4+4?", "And 1+1?"]  # the last is no opening of the chat
    assert [n for n, _ in kept] == [3, 4]  # rows keep their numbers
    assert said == ["exclude stage sft: 3 of 5 rows left out"]
    asked = {" ".join(q.casefold().split()) for s in teacher.data for i, row in enumerate(_rows(tmp_path, s)) for q in questions(row, s, i)}  # fmt: skip
    assert not asked & {" ".join(row["prompt"].casefold().split()) for _, row in kept}


def _rows(folder, source):
    return [json.loads(line) for line in (folder / source.source).read_text().splitlines()]


def test_the_other_way_round(tmp_path):
    """SFT leaves out conversations that ask an RL prompt anywhere they learn an answer."""
    rl = stage(RlStage, "rl", [write(tmp_path, "rl.jsonl", [{"prompt": "one"}, talk("hi", "hello", "two")])])
    rows = [talk("one", "1", "more", "2"), talk("hi", "3"), talk("hi", "x", "two", "y"), talk("two", "4")]
    sft = stage(SftStage, "sft", [write(tmp_path, "sft.jsonl", rows)], exclude=[{"stage": "rl"}])
    kept, _ = left(tmp_path, sft, rl)
    assert [n for n, _ in kept] == [1, 3]


def test_overlap_by_words_finds_what_is_only_similar(tmp_path):
    data = write(tmp_path, "bench.jsonl", [{"problem": LONG}, {"problem": "Sum of 2 and 3"}])
    rows = [{"problem": f"Suppose {LONG.upper()}!"}, {"problem": "sum of 2, and 3?"}, {"problem": "the sum of 2 and 3"},
            {"problem": "a train leaves the station at noon, then stops for good there"}]  # fmt: skip
    theirs = {**data, "prompt": "{problem}\nPlease place your final answer inside a box, and nothing else."}
    mine = {**write(tmp_path, "rl.jsonl", rows), "prompt": "{problem}\nPlease place your final answer inside a box, and nothing else."}  # fmt: skip
    config = stage(RlStage, "rl", [mine], exclude=[{"data": [theirs], "ngram": 9}])
    kept, said = left(tmp_path, config)
    assert [n for n, _ in kept] == [2, 3]  # the boilerplate of both prompts is no overlap
    assert said == ["exclude data bench.jsonl (9-grams): 2 of 4 rows left out"]
    exact = stage(RlStage, "rl", [mine], exclude=[{"data": [theirs]}])
    assert len(left(tmp_path, exact)[0]) == 4


def test_texts_without_a_word_are_not_all_the_same(tmp_path):
    config = stage(RlStage, "rl", [write(tmp_path, "a.jsonl", [{"prompt": "???"}])],
                   exclude=[{"data": [write(tmp_path, "b.jsonl", [{"prompt": "!"}])], "ngram": 3}])  # fmt: skip
    assert len(left(tmp_path, config)[0]) == 1


def test_by_category(tmp_path):
    rows = [{"prompt": "p", "domain": "code", "tags": ["a", "b"]}, {"prompt": "q", "domain": "chat", "tags": []},
            {"prompt": "r", "domain": "code", "tags": ["c"]}, {"prompt": "s"}]  # fmt: skip
    data = [write(tmp_path, "rows.jsonl", rows)]
    kept, said = left(tmp_path, stage(RlStage, "rl", data, exclude=[{"where": {"domain": ["code", "x"]}}]))
    assert [n for n, _ in kept] == [1, 3]
    assert said == ["exclude where domain is one of ['code', 'x']: 2 of 4 rows left out"]
    kept, _ = left(tmp_path, stage(RlStage, "rl", data, exclude=[{"where": {"domain": ["code"], "tags": ["b"]}}]))
    assert [n for n, _ in kept] == [1, 2, 3]  # every column named must match
    with pytest.raises(CascadeError, match="categry"):
        left(tmp_path, stage(RlStage, "rl", data, exclude=[{"where": {"categry": ["code"]}}]))


def test_values_are_compared_by_kind():
    assert has_values({"thinking": False}, {"thinking": [False]})
    assert not has_values({"thinking": 0}, {"thinking": [False]})
    assert not has_values({"n": True}, {"n": [1]})
    assert has_values({"n": 1}, {"n": [1]})
    assert not has_values({"n": "1"}, {"n": [1]})


def test_all_gone_is_an_error_with_counts(tmp_path):
    data = [write(tmp_path, "rows.jsonl", [{"prompt": "p", "k": 1}, {"prompt": "q", "k": 2}])]
    config = stage(RlStage, "rl", data, exclude=[{"data": data}, {"where": {"k": [1]}}])
    with pytest.raises(CascadeError, match=r"rl .*2 rows.*rows.jsonl took 2"):
        left(tmp_path, config)


def test_repeated_rows_are_counted_once_and_keep_their_numbers(tmp_path):
    data = {**write(tmp_path, "rows.jsonl", [{"prompt": "p", "k": 1}, {"prompt": "q", "k": 2}]), "repeat": 3}
    kept, said = left(tmp_path, stage(RlStage, "rl", [data], exclude=[{"where": {"k": [1]}}]))
    assert [n for n, _ in kept] == [1, 3, 5]
    assert said == ["exclude where k is one of [1]: 1 of 2 rows left out"]


def test_a_reward_model_leaves_pairs_out(tmp_path):
    pairs = [
        {"context": [{"role": "user", "content": "one"}], "response1": "a", "response2": "b", "overall_preference": 1},
        {"chosen": talk("two", "a")["messages"], "rejected": talk("two", "b")["messages"]},
        {"prompt": "three", "chosen": "a", "rejected": "b"},
        {"prompt": "four", "chosen": "a", "rejected": "b"},
    ]
    bench = write(tmp_path, "bench.jsonl", [{"prompt": p} for p in ("one", "two", "three")])
    config = stage(RewardModelStage, "rm", [write(tmp_path, "p.jsonl", pairs)], exclude=[{"data": [bench]}])
    assert [n for n, _ in left(tmp_path, config)[0]] == [3]


def test_rows_that_ask_nothing_readable_are_named(tmp_path):
    bench = write(tmp_path, "bench.jsonl", [{"problem": "one"}])
    config = stage(RlStage, "rl", [write(tmp_path, "a.jsonl", [{"prompt": "x"}])], exclude=[{"data": [bench]}])
    with pytest.raises(CascadeError, match="row 0 of bench.jsonl.*`messages`"):
        left(tmp_path, config)


def test_questions_of_a_row():
    source = DataSource(source="x")
    assert questions(talk("a", "b", "c", "d"), source, 0) == ["a", "a\nc"]
    assert questions(talk("a", "b", "c"), source, 0) == ["a\nc"]  # a prompt is one question
    assert questions({**talk("a", "b", "c"), "response": "d"}, source, 0) == ["a", "a\nc"]
    parts = [{"type": "text", "text": "a"}, {"type": "image"}]
    assert questions({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": parts}]}, source, 0) == ["a\n"]  # fmt: skip


@given(
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=12),
    st.lists(st.sampled_from("abc"), max_size=12),
    st.integers(1, 5),
)
def test_the_index_agrees_with_comparing_every_run_of_words(left_words, right_words, n):
    def grams(ws):
        return {tuple(ws[i : i + n]) for i in range(len(ws) - n + 1)} or ({tuple(ws)} if ws else set())

    index = NgramIndex(n)
    index.add(" ".join(left_words), Owner("g", "r"))
    assert index.touches(", ".join(right_words).upper()) == bool(grams(left_words) & grams(right_words))


def test_words():
    assert words("Straße: don't_x 3.5\n\\frac{1}{2}") == ["strasse", "don", "t_x", "3", "5", "frac", "1", "2"]

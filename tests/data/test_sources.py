import json
import os
from pathlib import Path

import pytest

from cascade_rl.data.refusals import Refusals
from cascade_rl.data.sources import (
    columns_of,
    dataset_fingerprint,
    fingerprint,
    load_rows,
    to_conversations,
    to_prompts,
)
from cascade_rl.recipe import DataSource
from cascade_rl.rows import present
from cascade_rl.types import CascadeError

SHARED = Path(os.environ.get("CASCADE_RL_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
ROWS = [{"question": "1+1?", "answer": "It is two. #### 2"}, {"question": "2+2?", "answer": "#### 4"}]


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    return tmp_path / "recipe.yaml"


def test_mapping_extracting_and_prompting(recipe):
    source = DataSource(
        source="rows.jsonl", columns={"problem": "question"}, extract={"answer": r"####\s*(.*)"}, prompt="Q: {problem}"
    )
    rows = load_rows(source, recipe)
    assert rows == [{"problem": "1+1?", "answer": "2"}, {"problem": "2+2?", "answer": "4"}]
    prompts = to_prompts(rows, source)
    assert prompts[1].messages == ({"role": "user", "content": "Q: 2+2?"},)
    assert prompts[1].columns["answer"] == "4"
    assert [p.id for p in prompts] == ["rows.jsonl:0", "rows.jsonl:1"]


def test_limit_and_repeat_keep_ids_apart(recipe):
    source = DataSource(source="rows.jsonl", limit=1, repeat=3, prompt="{question}")
    assert [p.id for p in to_prompts(load_rows(source, recipe), source)] == [f"rows.jsonl:{i}" for i in range(3)]


def test_a_row_may_have_a_limit_of_its_own():
    source = DataSource(source="rows.jsonl")
    rows = [{"prompt": "a", "max_new_tokens": 7}, {"prompt": "b", "max_new_tokens": None}, {"prompt": "c"}]
    assert [p.columns.get("max_new_tokens") for p in to_prompts(rows, source)] == [7, None, None]
    (whole,) = to_prompts([{"prompt": "a", "max_new_tokens": 32.0}], source)  # pandas, where other rows have none
    assert repr(whole.columns["max_new_tokens"]) == "32"
    for wrong in (0, -1, 2.5, float("nan"), float("inf"), "7", True):
        with pytest.raises(CascadeError, match=r"row 1 of rows.jsonl.*`max_new_tokens`"):
            to_prompts([rows[0], {"prompt": "b", "max_new_tokens": wrong}], source)


def test_the_three_file_kinds_and_folders_agree(recipe, tmp_path):
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b.jsonl").write_text(json.dumps(ROWS[1]) + "\n")
    (folder / "a.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    for name in ("rows.jsonl", "rows.json", "rows.parquet", "folder"):
        assert load_rows(DataSource(source=name), recipe) == ROWS


def test_a_saved_hub_data_set_reads_offline(recipe, tmp_path):
    import datasets

    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "saved"))
    assert load_rows(DataSource(source="saved"), recipe) == ROWS


def test_generators_by_import_path(recipe):
    source = DataSource(
        source="cascade_rl.data.procedural:addition", split="test", args={"rows": 3, "solved": True}, prompt="{problem}"
    )
    conversations = list(to_conversations(load_rows(source, recipe), source))
    assert conversations[0].messages[-1]["role"] == "assistant"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {"x": "questions"}}, "questions.*mean question"),
        ({"source": "none.jsonl"}, "none.jsonl"),
        ({"source": "no.such.module:f"}, "module"),
        ({"source": "cascade_rl.data.procedural:additon"}, "addition"),
        ({"source": "cascade_rl.data.procedural:addition", "args": {"row": 1}}, "row"),
    ],
)
def test_messages(recipe, changes, message):
    with pytest.raises(CascadeError, match=message):
        load_rows(DataSource(**{"source": "rows.jsonl", **changes}), recipe)


def test_broken_rows_are_named(recipe, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(CascadeError, match=r"rows\.jsonl:2"):
        load_rows(DataSource(source="rows.jsonl"), recipe)
    (tmp_path / "rows.jsonl").write_bytes('{"a": 1}\n'.encode("utf-16"))
    with pytest.raises(CascadeError, match=r"rows\.jsonl:1.*UTF-8"):
        load_rows(DataSource(source="rows.jsonl"), recipe)
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n')  # as Windows editors write it
    assert load_rows(DataSource(source="rows.jsonl"), recipe) == [{"a": 1}]
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(CascadeError, match="no rows"):
        load_rows(DataSource(source="rows.jsonl"), recipe)


def test_rows_without_prompt_or_answer(recipe):
    source = DataSource(source="rows.jsonl")
    rows = load_rows(source, recipe)
    with pytest.raises(CascadeError, match="`messages`"):
        to_prompts(rows, source)
    with pytest.raises(CascadeError, match="assistant"):
        list(to_conversations([{"prompt": "x"}], source))
    with pytest.raises(CascadeError, match="assistant"):
        to_prompts([{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}], source)


def test_fingerprints_follow_content_not_place(recipe, tmp_path):
    source = DataSource(source="rows.jsonl")
    before = fingerprint(source, recipe)
    os.utime(tmp_path / "rows.jsonl", (1, 1))
    assert fingerprint(source, recipe) == before
    assert fingerprint(DataSource(source="rows.jsonl", limit=1), recipe) != before
    (tmp_path / "rows.jsonl").write_text('{"question": "3"}\n')
    assert fingerprint(source, recipe) != before


def test_generators_are_fingerprinted_by_their_source(tmp_path):
    (tmp_path / "helper.py").write_text("N = 1\n")
    (tmp_path / "mine.py").write_text("import helper\ndef rows(split): yield {'prompt': helper.N}\n")
    source, recipe = DataSource(source="mine:rows"), tmp_path / "r.yaml"
    before = fingerprint(source, recipe)
    (tmp_path / "helper.py").write_text("N = 2\n")
    assert fingerprint(source, recipe) != before


def test_hub_ids_are_fingerprinted_without_fetching_and_not_peeked_at(recipe):
    source = DataSource(source="openai/gsm8k", config="main", revision="abc")
    assert fingerprint(source, recipe)["revision"] == "abc"
    assert columns_of(source, recipe) is None


def test_rows_themselves_have_a_fingerprint(recipe):
    source = DataSource(source="rows.jsonl", prompt="{question}")
    prompts = to_prompts(load_rows(source, recipe), source)
    assert dataset_fingerprint(prompts) == dataset_fingerprint(list(prompts))
    assert dataset_fingerprint(prompts) != dataset_fingerprint(prompts[::-1])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public sets are not beside this checkout")
def test_real_gsm8k_rows():
    source = DataSource(
        source=str(SHARED / "gsm8k-test.jsonl"), extract={"answer": r"####\s*(.*?)\s*$"}, prompt="{question}"
    )
    rows = load_rows(source, Path("r.yaml"))
    assert len(rows) == 1319
    assert [r["answer"] for r in rows[:3]] == ["18", "3", "70000"]


FILTERS = """\
def short(row): return len(row["problem"]) < 5
def none(row): return False
def broken(row): return row["gone"]
def vague(row): return None
def greedy(row):
    row["answer"] = "changed"
    return True
"""


@pytest.fixture
def filters(tmp_path, request):
    """The module's name: modules stay imported, so each test has its own."""
    name = f"filters_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(FILTERS)
    return name


def test_keep_sees_mapped_columns_and_comes_before_limit(recipe, tmp_path, filters):
    rows = [{"q": "much too long", "answer": "0"}, *({"q": "ab", "answer": str(i)} for i in range(3))]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    source = DataSource(source="rows.jsonl", columns={"problem": "q"}, keep=f"{filters}:short", limit=2, repeat=2)
    assert [row["answer"] for row in load_rows(source, recipe)] == ["0", "1", "0", "1"]
    greedy = source.model_copy(update={"keep": f"{filters}:greedy"})
    assert load_rows(greedy, recipe)[0]["answer"] == "0"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", r"row 0 .*gone"),
        ("vague", r"row 0 .*None"),
        ("none", "no rows"),
        ("shrt", "short"),
    ],
)
def test_what_can_be_wrong_with_keep(recipe, filters, name, message):
    with pytest.raises(CascadeError, match=message):
        load_rows(DataSource(source="rows.jsonl", columns={"problem": "question"}, keep=f"{filters}:{name}"), recipe)


def test_the_code_of_keep_is_part_of_the_fingerprint(recipe, tmp_path, filters):
    source = DataSource(source="rows.jsonl", keep=f"{filters}:none")
    before = fingerprint(source, recipe)
    (tmp_path / f"{filters}.py").write_text(FILTERS + "# another\n")
    assert fingerprint(source, recipe) != before


def test_rows_read_through_gzip(recipe, tmp_path):
    import gzip

    whole = gzip.compress((tmp_path / "rows.jsonl").read_bytes())
    (tmp_path / "rows.jsonl.gz").write_bytes(whole)
    assert load_rows(DataSource(source="rows.jsonl.gz"), recipe) == ROWS
    (tmp_path / "rows.jsonl.gz").write_bytes(whole[:-12])
    with pytest.raises(CascadeError, match=r"rows\.jsonl\.gz.*line \d"):
        load_rows(DataSource(source="rows.jsonl.gz"), recipe)


# --- Null is absent, and rows are refused one by one ------------------------------------------------------------------------


def written(tmp_path, rows, kind):
    """``rows`` as a file in which each row has every column: null where it had none."""
    import pyarrow
    import pyarrow.parquet

    columns = sorted({name for row in rows for name in row})
    full = [{name: row.get(name) for name in columns} for row in rows]
    path = tmp_path / f"full.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(full), path)
    elif kind == "json":
        path.write_text(json.dumps(full))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in full))
    return path.name


MIXED = [
    {"prompt": "a", "answer": "1", "tolerance": 0.1},
    {"messages": [{"role": "user", "content": "b"}], "thinking": True, "time_limit_s": 2.0},
    {"prompt": "c", "domain": "code", "max_new_tokens": 7},
    {"messages": [{"role": "user", "content": "d"}, {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]}, {"role": "user", "content": "e"}],
     "tools": [{"type": "function", "function": {"name": "f"}}]},
    {"messages": [{"role": "user", "content": "d"}, {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": "g", "arguments": {"y": "z"}}}]}, {"role": "user", "content": "e"}]},
]  # fmt: skip


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_a_table_that_has_every_column_reads_as_one_that_has_not(recipe, tmp_path, kind):
    (tmp_path / "sparse.jsonl").write_text("".join(json.dumps(row) + "\n" for row in MIXED))
    one, other = DataSource(source="sparse.jsonl"), DataSource(source=written(tmp_path, MIXED, kind))
    prompts, full = (to_prompts(load_rows(source, recipe), source) for source in (one, other))
    assert [p.messages for p in full] == [p.messages for p in prompts]
    assert [p.tools for p in full] == [p.tools for p in prompts]
    assert [(p.thinking, p.domain) for p in full] == [(p.thinking, p.domain) for p in prompts]
    for ours, theirs in zip(full, prompts, strict=True):
        assert ours.columns.keys() == theirs.columns.keys()
    assert full[3].messages[1]["tool_calls"][0]["function"]["arguments"] == {"x": 1}  # Arrow has "y": null there


def test_a_mapped_column_may_be_absent_or_null_in_some_rows(recipe, tmp_path):
    rows = [{"q": "a"}, {"q": "b", "tol": 0.5, "a": "#### 3"}, {"q": "c", "tol": None, "a": None, "tolerance": 9}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = DataSource(source="rows.jsonl", columns={"tolerance": "tol", "answer": "a"}, extract={"answer": r"(\d)"})
    assert load_rows(source, recipe) == [{"q": "a"}, {"q": "b", "tolerance": 0.5, "answer": "3"}, {"q": "c"}]
    for wrong, word in (({"columns": {"x": "tolerances"}}, "tolerance"), ({"extract": {"answr": "(.)"}}, "answr")):
        with pytest.raises(CascadeError, match=word):
            load_rows(DataSource(**{"source": "rows.jsonl", **wrong}), recipe)


def test_no_format_string_writes_a_null_into_a_prompt(recipe, tmp_path):
    source = DataSource(source="rows.jsonl", prompt="{question} in {units}")
    rows = [{"question": "a", "units": "km"}, {"question": "b", "units": None}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refusals = Refusals()
    (prompt,) = to_prompts(load_rows(source, recipe), source, refusals=refusals)
    assert prompt.messages[0]["content"] == "a in km"
    assert "row 1" in refusals.faults[0]
    assert "units" in refusals.faults[0]


def test_a_row_that_cannot_be_used_is_counted_and_named():
    source = DataSource(source="rows.jsonl")
    good = {"prompt": "a", "response": "b"}
    rows = [
        good,
        {**good, "prompt": "\ud83d"},
        {"answer": 1},
        {**good, "note": ["\udc00"]},
        {**good, "tools": "x"},
        good,
    ]
    for read in (to_prompts, to_conversations):
        refusals, said = Refusals(), []
        assert [made.id for made in read(rows, source, refusals=refusals)] == ["rows.jsonl:0", "rows.jsonl:5"]
        refusals.report(said.append, len(rows))
        assert "4 of 6" in said[0]
        assert all(f"row {number} of rows.jsonl" in said[0] for number in (1, 2, 3, 4))
        refusals.refuse_all(len(rows))
        with pytest.raises(CascadeError, match="row 1"):
            list(read(rows, source))


def test_when_no_row_can_be_used_the_first_says_why():
    refusals, said = Refusals(), []
    assert to_prompts([{"a": 1}] * 9, DataSource(source="x"), refusals=refusals) == []
    refusals.report(said.append, 9)
    assert "4 more" in said[0]
    with pytest.raises(CascadeError, match="row 0"):
        refusals.refuse_all(9)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"prompt": "a", "response": "b"},
        {"prompt": "a", "completion": "b", "response": None, "messages": None},
        {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]},
    ],
)
def test_every_layout_of_a_conversation_is_the_same(row):
    (made,) = to_conversations([present(row)], DataSource(source="x"))
    assert made.messages == ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    assert made.tools == ()


def test_tools_come_with_their_row():
    tool = {"type": "function", "function": {"name": "f"}}
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for more in ({"tools": [tool]}, {"tools": json.dumps([{"name": "f"}])}, {"functions": [{"name": "f"}]}):
        (made,) = to_conversations([{"messages": talk, **more}], DataSource(source="x"))
        assert made.tools == (tool,)
    (prompt,) = to_prompts([{"prompt": "a", "tools": [tool]}], DataSource(source="x"))
    assert prompt.tools == (tool,)


def test_reasoning_in_a_column_of_its_own_is_part_of_the_answer():
    (made,) = to_conversations([{"prompt": "a", "reasoning": "hm", "response": "b"}], DataSource(source="x"))
    assert made.messages[-1] == {"role": "assistant", "content": "b", "reasoning_content": "hm"}


RAW = [b'{"prompt": "a"}', b'{"prompt": "\xed\xa0\xbd"}', b'{"prompt": "\xff", "b": "\xc3"}', b'{"prompt": "\xc3\xa9"}']
"""The second row has half of a surrogate pair as bytes, the third bytes of no encoding at all."""


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_bytes_that_are_not_utf_8_spoil_their_own_row(recipe, tmp_path, kind):
    whole = b"\n".join(RAW) if kind == "jsonl" else b"[" + b",".join(RAW) + b"]"
    (tmp_path / f"rows.{kind}").write_bytes(b"\xef\xbb\xbf" + whole)
    source, refusals = DataSource(source=f"rows.{kind}"), Refusals()
    prompts = to_prompts(load_rows(source, recipe), source, refusals=refusals)
    assert [prompt.messages[0]["content"] for prompt in prompts] == ["a", "é"]
    assert all(f"row {n}" in fault and "UTF-8" in fault for n, fault in zip((1, 2), refusals.faults, strict=True))


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_a_file_nested_too_deeply_is_named(recipe, tmp_path, kind):
    (tmp_path / f"rows.{kind}").write_text("[" * 200_000 + "]" * 200_000)
    with pytest.raises(CascadeError, match=rf"rows\.{kind}"):
        load_rows(DataSource(source=f"rows.{kind}"), recipe)


def test_a_saved_data_set_with_bytes_that_are_not_utf_8(recipe, tmp_path):
    import datasets
    import pyarrow

    texts = pyarrow.array([b"a", b"\xff", b"c"], pyarrow.binary()).cast(pyarrow.string(), safe=False)
    datasets.Dataset(datasets.table.InMemoryTable(pyarrow.table({"prompt": texts}))).save_to_disk(str(tmp_path / "set"))
    source, refusals = DataSource(source="set"), Refusals()
    prompts = to_prompts(load_rows(source, recipe), source, refusals=refusals)
    assert [prompt.id for prompt in prompts] == ["set:0", "set:2"]
    assert "row 1" in refusals.faults[0]


# --- One odd row ends nothing -------------------------------------------------------------------------------------------------


def test_a_row_that_extract_does_not_fit_is_left_out(recipe, tmp_path):
    rows = [
        {"prompt": "a", "response": "#### 1"},
        {"prompt": "b", "response": "none"},
        {"prompt": "c", "response": "#### 3"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for pattern in (r"####\s*(\d)", r"####\s*(\d)|(none)"):
        source = DataSource(source="rows.jsonl", extract={"response": pattern}, repeat=2)
        for read in (to_prompts, to_conversations):
            refusals = Refusals()
            made = list(read(load_rows(source, recipe), source, refusals=refusals))
            assert [one.id for one in made] == [f"rows.jsonl:{n}" for n in (0, 2, 3, 5)]
            assert refusals.count == 2
            assert all(word in refusals.faults[0] for word in ("row 1", "response", "extract", "'none'"))


def test_a_pattern_that_fits_no_row_stops_with_the_first(recipe):
    source = DataSource(source="rows.jsonl", extract={"answer": "(zzz)"}, prompt="{question}")
    refusals = Refusals()
    assert to_prompts(load_rows(source, recipe), source, refusals=refusals) == []
    with pytest.raises(CascadeError, match=r"row 0 .*answer"):
        refusals.refuse_all(2)


GENERATORS = """\
class Custom(Exception): pass
def broken(split):
    yield {"prompt": "a"}
    raise Custom("gone")
def texts(split): return ["a", "b"]
def pairs(split): return [[("prompt", "a")]]
def numbered(split): return [{1: "a"}]
def nothing(split): return None
def fine(split): return iter([{"prompt": "a"}])
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", ["Custom", "gone", "made_rows.py:4"]),
        ("texts", ["row 0", "'a'"]),
        ("pairs", ["row 0"]),
        ("numbered", ["row 0"]),
        ("nothing", ["NoneType"]),
    ],
)
def test_what_a_generator_may_do_wrong_is_named(recipe, tmp_path, monkeypatch, name, words):
    import sys

    monkeypatch.delitem(sys.modules, "made_rows", raising=False)
    (tmp_path / "made_rows.py").write_text(GENERATORS)
    assert load_rows(DataSource(source="made_rows:fine"), recipe) == [{"prompt": "a"}]
    with pytest.raises(CascadeError) as caught:
        load_rows(DataSource(source=f"made_rows:{name}"), recipe)
    assert all(word in str(caught.value) for word in [f"made_rows:{name}", *words])


@pytest.mark.parametrize("name", [".rows:f", "rows.:f", "a..b:f"])
def test_a_name_that_is_no_generator_is_none_anywhere(recipe, name):
    """Check and reader agree (``recipe.paths.is_generator``)."""
    from cascade_rl.recipe.paths import is_generator

    assert not is_generator(name)
    assert "generator" not in fingerprint(DataSource(source=name), recipe)
    assert columns_of(DataSource(source=name), recipe) is None


def test_a_split_that_a_saved_data_set_lacks_is_named(recipe, tmp_path):
    import datasets

    datasets.DatasetDict({"test": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "saved"))
    assert load_rows(DataSource(source="saved", split="test"), recipe) == ROWS
    with pytest.raises(CascadeError, match="'train'.*test"):
        load_rows(DataSource(source="saved"), recipe)
    (tmp_path / "saved" / "test" / "state.json").write_text("{")
    with pytest.raises(CascadeError, match="saved"):
        load_rows(DataSource(source="saved", split="test"), recipe)


def test_objects_a_line_in_a_json_file_are_named_as_such(recipe, tmp_path):
    (tmp_path / "rows.json").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    with pytest.raises(CascadeError, match=r"\.jsonl"):
        load_rows(DataSource(source="rows.json"), recipe)


def test_rows_of_a_generator_may_come_from_pandas(recipe, tmp_path, monkeypatch):
    """Its tables hold lists as arrays of numpy, and marks of absence that are neither true nor false."""
    import sys

    code = """\
    import numpy, pandas
    def rows(split):
        talk = numpy.array([{"role": "user", "content": "a"}], dtype=object)
        yield {"messages": talk, "image": pandas.NA, "reasoning": pandas.NaT, "n": numpy.int64(3), "tests": numpy.array([[1, 2]])}
    """
    monkeypatch.delitem(sys.modules, "pandas_rows", raising=False)
    (tmp_path / "pandas_rows.py").write_text("".join(line[4:] + "\n" for line in code.splitlines()))
    source = DataSource(source="pandas_rows:rows")
    (prompt,) = to_prompts(load_rows(source, recipe), source)
    assert prompt.messages == ({"role": "user", "content": "a"},)
    assert prompt.columns == {"n": 3, "tests": [[1, 2]]}
    assert type(prompt.columns["n"]) is int

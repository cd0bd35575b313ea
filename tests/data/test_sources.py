import json
import os
from pathlib import Path

import pytest

from cascade_rl.data.sources import (
    columns_of,
    dataset_fingerprint,
    fingerprint,
    load_rows,
    to_conversations,
    to_prompts,
)
from cascade_rl.recipe import DataSource
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
    for wrong in (0, -1, 2.5, 7.0, "7", True):
        with pytest.raises(CascadeError, match=r"row 1 of rows.jsonl: column `max_new_tokens` must be a whole number"):
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
        ({"columns": {"x": "questions"}}, "has no column 'questions'.*did you mean question"),
        ({"extract": {"answer": "(zzz)"}}, r"row 0 .*finds nothing in column answer"),
        ({"source": "none.jsonl"}, "no data file none.jsonl"),
        ({"source": "no.such.module:f"}, "no module 'no'"),
        ({"source": "cascade_rl.data.procedural:additon"}, "did you mean addition"),
        ({"source": "cascade_rl.data.procedural:addition", "args": {"row": 1}}, "unexpected keyword"),
    ],
)
def test_messages(recipe, changes, message):
    with pytest.raises(CascadeError, match=message):
        load_rows(DataSource(**{"source": "rows.jsonl", **changes}), recipe)


def test_broken_rows_are_named(recipe, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(CascadeError, match=r"rows\.jsonl:2: not valid JSON"):
        load_rows(DataSource(source="rows.jsonl"), recipe)
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    with pytest.raises(CascadeError, match=r"rows\.jsonl:2: not UTF-8"):
        load_rows(DataSource(source="rows.jsonl"), recipe)
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n')  # as Windows editors write it
    assert load_rows(DataSource(source="rows.jsonl"), recipe) == [{"a": 1}]
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(CascadeError, match="has no rows"):
        load_rows(DataSource(source="rows.jsonl"), recipe)


def test_rows_without_prompt_or_answer(recipe):
    source = DataSource(source="rows.jsonl")
    rows = load_rows(source, recipe)
    with pytest.raises(CascadeError, match="no usable `messages` or `prompt`"):
        to_prompts(rows, source)
    with pytest.raises(CascadeError, match="no assistant message"):
        list(to_conversations([{"prompt": "x"}], source))
    with pytest.raises(CascadeError, match="nothing is left to generate"):
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
    with pytest.raises(CascadeError, match=r"rows\.jsonl\.gz: no whole gzip file; broken after line \d"):
        load_rows(DataSource(source="rows.jsonl.gz"), recipe)

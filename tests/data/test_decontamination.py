"""Rows that overlap with benchmarks: against a naive reference, over all kinds of files, in flat memory."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rl.data.decontamination import (
    Reference,
    build_index,
    decontaminate,
    reference_of_file,
    reference_of_sources,
    texts_of,
)
from cascade_rl.data.ngrams import NgramIndex
from cascade_rl.recipe import DataSource
from cascade_rl.types import CascadeError

ROOT = Path(__file__).parents[2]
EIGHT = "one two three four five six seven eight"


def index_of(*texts, n=9, name="bench"):
    return build_index([Reference(name, [(f"row {i}", [text]) for i, text in enumerate(texts, 1)])], n)[0]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --- Agreement with the plain definition ---------------------------------------------------------------------------------


def reference_grams(text, n):
    """As the docstring says it, with sets: casefold, split on non-word characters, n words; shorter ones whole."""
    found = [word for word in re.split(r"\W+", text.casefold()) if word]
    if len(found) < n:
        return {("whole", *found)} if found else set()
    return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}


WORD = st.sampled_from(["a", "b", "C", "ß", "1", "e_f"])
GLUE = st.sampled_from([" ", ", ", "\n", "-", "?! "])
TEXT = st.lists(st.tuples(WORD, GLUE), max_size=14).map(lambda parts: "".join(w + g for w, g in parts))


@settings(deadline=None, max_examples=150)
@given(st.lists(TEXT, min_size=1, max_size=5), st.lists(TEXT, min_size=1, max_size=6), st.integers(1, 6))
def test_it_agrees_with_sets(tmp_path_factory, theirs, mine, n):
    if not any(text.strip() for text in theirs):
        return
    folder = tmp_path_factory.mktemp("sets")
    data = write(folder / "data.jsonl", [{"prompt": text} for text in mine])
    tally = decontaminate(data, folder / "out.jsonl", index_of(*theirs, n=n))
    bench = set().union(*(reference_grams(text, n) for text in theirs))
    kept = [text for text in mine if not reference_grams(text, n) & bench]
    assert [json.loads(line)["prompt"] for line in (folder / "out.jsonl").read_text().splitlines()] == kept
    assert (tally.kept, tally.removed, tally.by_benchmark["bench"]) == (len(kept), *[len(mine) - len(kept)] * 2)


# --- Texts -----------------------------------------------------------------------------------------------------------------


def test_nine_words_overlap_and_eight_do_not(tmp_path):
    rows = [
        {"prompt": f"x {EIGHT} nine y"},
        {"prompt": f"x {EIGHT} y"},
        {"prompt": "Short ONE"},
        {"prompt": "a short one"},
    ]
    data = write(tmp_path / "d.jsonl", rows)
    tally = decontaminate(data, tmp_path / "o.jsonl", index_of(f"Q: {EIGHT.upper()}, nine?", "short one!"))
    assert [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()] == [rows[1], rows[3]]
    first, second = tally.examples["bench"]
    assert (first.row, first.benchmark_row, first.ngram) == (1, "row 1", f"{EIGHT} nine")
    assert (second.row, second.benchmark_row, second.ngram) == (3, "row 2", "short one")


def test_a_row_counts_for_each_benchmark_it_overlaps_with(tmp_path):
    references = [
        Reference(name, [("row 1", [text])]) for name, text in (("a", "x y z"), ("b", "y z w"), ("c", "x y z"))
    ]
    index, rows = build_index(references, 2)
    assert rows == {"a": 1, "b": 1, "c": 1}
    tally = decontaminate(write(tmp_path / "d.jsonl", [{"prompt": "x y z w"}, {"prompt": "z w"}]), None, index)
    assert tally.by_benchmark == {"a": 1, "b": 2, "c": 1}
    assert (tally.removed, tally.rows) == (2, 2)


def test_which_texts_of_a_row_are_compared():
    row = {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}], "prompt": "p",
           "extra": {"problem": "deep", "list": ["x", None, "y"]}, "response": "r"}  # fmt: skip
    assert texts_of(row, (), "w", "--field") == ["u", "p"]
    assert texts_of(row, ("extra.problem", "response", "gone"), "w", "--field") == ["deep", "r"]
    assert texts_of(row, ("extra.list",), "w", "--field") == ["x", "y"]
    with pytest.raises(CascadeError, match=r"^w .*gone.*extra.*--f"):
        texts_of(row, ("gone",), "w", "--field")


def test_a_benchmarks_format_string_is_no_overlap(tmp_path):
    boilerplate = "Please place your final answer inside a box and show all of your reasoning"
    write(tmp_path / "b.jsonl", [{"id": 7, "problem": "How many primes are there below one hundred and one"}])
    source = DataSource(source="b.jsonl", prompt="{problem}\n" + boilerplate)
    index, _ = build_index([reference_of_sources("bench", [source], tmp_path / "r.yaml")], 9)
    rows = [
        {"prompt": f"2+2? {boilerplate}"},
        {"prompt": f"Say how many primes are there below one hundred? {boilerplate}"},
    ]
    tally = decontaminate(write(tmp_path / "d.jsonl", rows), None, index)
    assert (tally.removed, tally.by_benchmark["bench"]) == (0, 0)
    rows.append({"prompt": "Say how many primes are there below one hundred and one"})
    tally = decontaminate(write(tmp_path / "d.jsonl", rows), None, index)
    assert tally.examples["bench"][0].benchmark_row == "row 1 (id 7)"


def test_a_reference_without_text_is_refused(tmp_path):
    with pytest.raises(CascadeError, match="texts"):
        build_index([reference_of_file(write(tmp_path / "b.jsonl", [{"prompt": ""}]))], 9)
    with pytest.raises(CascadeError, match="row 1 of .*b.jsonl.*--against-field"):
        build_index([reference_of_file(write(tmp_path / "b.jsonl", [{"text": "x"}]))], 9)


# --- Files -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_kept_lines_are_copied_byte_for_byte(tmp_path, ending):
    lines = [
        b'\xef\xbb\xbf{"prompt":   "keep me"}\r\n',
        b"\n",
        b'{"prompt": "x y z"}\n',
        '{"prompt": "\\u00e9 é", "n": 1.0}'.encode(),
    ]
    data, out = tmp_path / f"d{ending}", tmp_path / f"o{ending}"
    pack, unpack = (gzip.compress, gzip.decompress) if ending.endswith("gz") else (bytes, bytes)
    data.write_bytes(pack(b"".join(lines)))
    tally = decontaminate(data, out, index_of("x y z", n=2))
    assert unpack(out.read_bytes()) == lines[0] + lines[1] + lines[3]
    assert (tally.rows, tally.kept) == (3, 2)
    again = tmp_path / f"again{ending}"
    decontaminate(data, again, index_of("x y z", n=2))
    assert again.read_bytes() == out.read_bytes()


def test_parquet_keeps_rows_order_and_schema(tmp_path):
    import pyarrow
    import pyarrow.parquet

    texts = [f"{'x y z' if i % 3 == 0 else 'free'} {i}" for i in range(3000)]
    table = pyarrow.table({"id": range(3000), "prompt": texts, "score": pyarrow.array([0.5] * 3000, pyarrow.float32())})
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet", compression="ZSTD")
    tally = decontaminate(tmp_path / "d.parquet", tmp_path / "o.parquet", index_of("x y z", n=3))
    out = pyarrow.parquet.read_table(tmp_path / "o.parquet")
    assert out.schema == table.schema
    assert out["id"].to_pylist() == [i for i in range(3000) if i % 3]
    assert (tally.removed, tally.examples["bench"][1].row, tally.examples["bench"][1].id) == (1000, 4, 3)
    assert pyarrow.parquet.ParquetFile(tmp_path / "o.parquet").metadata.row_group(0).column(0).compression == "ZSTD"
    with pytest.raises(CascadeError, match="row 1 of .*text"):
        decontaminate(tmp_path / "d.parquet", None, index_of("x"), ["text"])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(CascadeError, match="parquet"):
        decontaminate(tmp_path / "broken.parquet", None, index_of("x"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": ', r"d\.jsonl:2: not valid JSON"),
        (b'{"prompt": "\xff"}', r"d\.jsonl:2: not UTF-8"),
        (b"[1]", r"d\.jsonl:2: a row must be an object"),
        (b'{"text": "x"}', r"d\.jsonl:2 has none of the fields"),
        (b"[" * 100_000, r"d\.jsonl:2: not valid JSON"),
    ],
)
def test_malformed_lines_are_named_or_left_out(tmp_path, line, message):
    data = tmp_path / "d.jsonl"
    data.write_bytes(b'{"prompt": "a"}\n' + line + b'\n{"prompt": "b"}\n')
    with pytest.raises(CascadeError, match=message + r"[^$]*\n.*--skip-malformed"):
        decontaminate(data, None, index_of("x"))
    tally = decontaminate(data, tmp_path / "o.jsonl", index_of("x"), skip_malformed=True)
    assert (tally.rows, tally.kept, tally.malformed, tally.malformed_rows) == (3, 2, 1, [2])
    assert (tmp_path / "o.jsonl").read_bytes() == b'{"prompt": "a"}\n{"prompt": "b"}\n'


def test_unknown_endings(tmp_path):
    with pytest.raises(CascadeError, match=r"\.jsonl"):
        decontaminate(write(tmp_path / "d.txt", [{}]), None, index_of("x"))


MEASURED = """
import json, random, sys
from pathlib import Path
from cascade_rl.data.decontamination import Reference, build_index, decontaminate

folder, count = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(0)
words = [f"w{i}" for i in range(500)]
with open(folder / "d.jsonl", "w") as file:
    for i in range(count):
        prompt = "x y z" if i % 10 == 0 else " ".join(draw.choices(words, k=20))
        file.write(json.dumps({"id": i, "prompt": prompt, "padding": "p" * 200}) + chr(10))
index, _ = build_index([Reference("b", [("row 1", ["x y z"])])], 3)
tally = decontaminate(folder / "d.jsonl", folder / "o.jsonl", index)
assert tally.removed == count // 10, tally
status = Path("/proc/self/status").read_text()  # not getrusage, which a child inherits from its parent
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    peaks = []
    for count in (20_000, 200_000):
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(tmp_path), str(count)],
            capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        peaks.append(int(done.stdout) / 1024)
    assert (tmp_path / "d.jsonl").stat().st_size > 50_000_000
    assert peaks[1] < peaks[0] + 25, f"MiB: {peaks}"  # the larger file alone has more than 50


def test_messages_under_other_names_are_compared_too():
    row = {"conversations": [{"from": "human", "value": "a b"}, {"from": "gpt", "value": "c"}]}
    assert texts_of(row, (), "here", "--field") == ["a b"]
    null = {"messages": [{"role": None, "from": "human", "content": None, "value": "a b"}], "prompt": None}
    assert texts_of(null, (), "here", "--field") == ["a b"]


def test_ids_and_texts_with_half_a_surrogate_pair_are_reported(tmp_path):
    row = '{"prompt": "a b c \\ud83d d", "id": "\\udc00"}\n'
    (tmp_path / "bench.jsonl").write_text(row)
    (tmp_path / "rows.jsonl").write_text(row + '{"prompt": "x y z"}\n')
    index, _ = build_index([reference_of_file(tmp_path / "bench.jsonl")], 3)
    tally = decontaminate(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", index)
    (examples,) = tally.examples.values()
    assert (tally.removed, tally.kept) == (1, 1)
    for text in (examples[0].id, examples[0].benchmark_row, examples[0].ngram):
        text.encode()


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_row_that_is_not_utf_8_is_malformed(tmp_path, kind):
    path = tmp_path / f"data.{kind}"
    if kind == "jsonl":
        path.write_bytes(b'{"prompt": "a"}\n{"prompt": "\xed\xa0\xbd"}\n{"prompt": "b"}\n')
    else:
        import pyarrow
        import pyarrow.parquet

        texts = pyarrow.array([b"a", b"\xff", b"b"], pyarrow.binary()).cast(pyarrow.string(), safe=False)
        pyarrow.parquet.write_table(pyarrow.table({"prompt": texts}), path)
    tally = decontaminate(path, None, NgramIndex(9), skip_malformed=True)
    assert (tally.rows, tally.kept, tally.malformed_rows) == (3, 2, [2])
    with pytest.raises(CascadeError, match="2.*UTF-8"):
        decontaminate(path, None, NgramIndex(9))

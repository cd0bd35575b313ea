"""`cascade-rl decontaminate`, as a person uses it."""

import json

import pytest

from tests.cli.test_cli import cli
from tests.messages import mentions

LONG = "every morning she goes for a walk of nine kilometres and has a coffee"


@pytest.fixture
def folder(tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    write("d.jsonl", [{"id": "a", "prompt": f"Suppose {LONG}."}, {"id": "b", "prompt": "Something else"}])
    write("e.jsonl", [{"prompt": "Free"}])
    write("bench.jsonl", [{"id": 60, "problem": LONG, "answer": "204"}])
    return tmp_path


def run(folder, *arguments):
    return cli("decontaminate", *arguments, cwd=folder)


def test_one_file(folder):
    result = run(folder, "d.jsonl", "--against", "bench.jsonl", "--out", "o.jsonl", "--report", "r.json")
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()[:2]
    assert mentions(first, "d.jsonl", "2 rows", "1 removed", "1 kept", "o.jsonl")
    assert mentions(second, "bench.jsonl: 1", "1 (id a)", "1 (id 60)", "'every morning she goes for a walk of nine'")
    assert (folder / "o.jsonl").read_text() == json.dumps({"id": "b", "prompt": "Something else"}) + "\n"
    report = json.loads((folder / "r.json").read_text())
    assert report["against"] == [{"name": "bench.jsonl", "rows": 1}]
    (file,) = report["files"]
    assert (file["rows"], file["kept"], file["removed"], file["malformed"]) == (2, 1, 1, 0)
    (example,) = file["benchmarks"]["bench.jsonl"]["examples"]
    assert example == {"row": 1, "id": "a", "benchmark": "bench.jsonl", "benchmark_row": "row 1 (id 60)",
                       "ngram": "every morning she goes for a walk of nine"}  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["bench.jsonl", "d.jsonl", "e.jsonl", "o.jsonl", "r.json"]


def test_a_shipped_benchmark_offline_and_several_files(folder):
    result = run(folder, "d.jsonl", "e.jsonl", "--against", "aime24=bench.jsonl", "--out", "clean")
    assert result.returncode == 0, result.stderr
    assert "aime24: 1" in result.stdout
    assert sorted(path.name for path in (folder / "clean").iterdir()) == ["d.jsonl", "e.jsonl"]
    assert (folder / "clean" / "e.jsonl").read_bytes() == (folder / "e.jsonl").read_bytes()


def test_a_dry_run_writes_nothing(folder):
    before = sorted(folder.iterdir())
    result = run(folder, "d.jsonl", "--against", "bench.jsonl", "--dry-run", "--field", "prompt", "--ngram", "5")
    assert mentions(result.stdout, "2 rows", "1 removed", "1 kept")
    assert sorted(folder.iterdir()) == before


def test_a_failure_leaves_what_was_there(folder):
    (folder / "o.jsonl").write_text("old")
    with open(folder / "d.jsonl", "a") as file:
        file.write("broken\n")
    result = run(folder, "d.jsonl", "--against", "bench.jsonl", "--out", "o.jsonl")
    assert result.returncode == 1
    assert mentions(result.stderr, "d.jsonl:3", "JSON")
    assert (folder / "o.jsonl").read_text() == "old"
    assert sorted(path.name for path in folder.iterdir()) == ["bench.jsonl", "d.jsonl", "e.jsonl", "o.jsonl"]
    result = run(folder, "d.jsonl", "--against", "bench.jsonl", "--out", "o.jsonl", "--skip-malformed")
    assert mentions(result.stdout, "3 rows", "1 removed", "1 malformed", "1 kept")


def test_boilerplate_is_pointed_out(folder):
    rows = [{"prompt": f"{i} {LONG}"} for i in range(20)]
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run(folder, "d.jsonl", "--against", "bench.jsonl", "--dry-run")
    assert mentions(result.stdout, "20", "'every morning she goes for a walk of nine'", "boilerplate")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("d.jsonl", "--dry-run"), "--against"),
        (("d.jsonl", "--against", "bench.jsonl"), "--out --dry-run"),
        (("d.jsonl", "--against", "aime2", "--dry-run"), "file benchmark 'aime2' aime25"),
        (("d.jsonl", "--against", "aime24=gone.jsonl", "--dry-run"), "no file gone.jsonl"),
        (("gone.jsonl", "--against", "bench.jsonl", "--dry-run"), "no data gone.jsonl"),
        (("d.jsonl", "--against", "bench.jsonl", "--out", "./d.jsonl"), "data itself"),
        (("d.jsonl", "./d.jsonl", "--against", "bench.jsonl", "--out", "x"), "two d.jsonl"),
        (("d.jsonl", "--against", "bench.jsonl", "--out", "o.parquet"), "kind d.jsonl"),
        (("d.jsonl", "--against", "bench.jsonl", "--dry-run", "--field", "gone"), "d.jsonl:1 gone"),
        (("d.jsonl", "--against", "bench.jsonl", "--dry-run", "--against-field", "gone"), "--against-field"),
    ],
)
def test_slips(folder, arguments, words):
    result = run(folder, *arguments)
    assert result.returncode == 1
    assert mentions(result.stderr, *words.split()), result.stderr
    assert "Traceback" not in result.stderr

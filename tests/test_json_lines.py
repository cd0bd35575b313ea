"""Lines end at \\n alone, whatever else stands inside them: no file of lines loses or splits a row."""

from __future__ import annotations

import io
import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rl.cli.scoring import reward_config, score_file
from cascade_rl.data.lines import writing
from cascade_rl.data.reading import file_rows
from cascade_rl.evals.runner import Sample, append_sample, read_samples
from cascade_rl.json_lines import line_of, text_lines
from cascade_rl.report.timeline import read_trace
from cascade_rl.store import StageFolder
from cascade_rl.store.inspection import metric_lines, metric_steps
from cascade_rl.tracking.sinks import JsonlSink
from rewards.judging import VerdictCache

ENDS = "\r \x0b \x0c \x1c \x1d \x1e \x85 \u2028 \u2029 \r\n"
"""What ``str.splitlines`` ends a line at besides ``\\n``."""
RAW = json.dumps("\x85 \u2028 \u2029", ensure_ascii=False)
"""Those that may stand in a JSON string as they are; other tools write them so."""


@given(st.lists(st.text(), max_size=4))
@settings(max_examples=200, deadline=None)
def test_any_value_is_one_line_that_reads_back(value):
    line = line_of({"text": value})
    assert len(line.splitlines()) == 1
    line.encode()  # lone surrogates too
    assert json.loads(line) == {"text": value}


def test_line_of_keeps_letters_readable_and_escapes_line_ends():
    assert line_of("é漢\u2028\ud83d") == '"é漢\\u2028\\ud83d"\n'


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"a\r\nb\rc\x0cd\n", ["a\r", "b\rc\x0cd"]),
        ("\u2028\x85\n\u2029".encode(), ["\u2028\x85", "\u2029"]),
        (b"\xff\n", ["\ufffd"]),
    ],
)
def test_lines_of_a_file(tmp_path, content, lines):
    (tmp_path / "f").write_bytes(content)
    assert text_lines(tmp_path / "f") == lines


def test_evaluation_samples_come_back_whole(tmp_path):
    samples = [Sample(row, 0, 1.0, 3, False, None, text) for row, text in enumerate([ENDS, "plain", "\ud83d"])]
    path = tmp_path / "samples.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for sample in samples:
            append_sample(file, sample)
    assert read_samples(path) == samples
    # As files of older versions have them: not escaped.
    path.write_text("".join(json.dumps(vars(s), ensure_ascii=False) + "\n" for s in samples[:2]), encoding="utf-8")
    assert read_samples(path) == samples[:2]


def test_a_torn_sample_does_not_hide_those_after_it(tmp_path):
    samples = [Sample(row, 0, 1.0, 3, False, None, "text") for row in range(3)]
    lines = [line_of(vars(sample)) for sample in samples]
    (tmp_path / "samples.jsonl").write_text(lines[0] + lines[1][:20] + "\n" + lines[2])
    assert read_samples(tmp_path / "samples.jsonl") == [samples[0], samples[2]]


def test_metrics_are_read_at_newlines_alone(tmp_path):
    folder = StageFolder(tmp_path)
    lines = [f'{{"step": {step}, "note": {RAW},\r "loss": 0.5}}' for step in (1, 2, 3)]
    folder.metrics.write_bytes("\n".join(lines).encode() + b"\n")
    read = metric_lines(folder.metrics)
    assert [(step, row["note"]) for step, row in read.items()] == [(n, json.loads(RAW)) for n in (1, 2, 3)]
    assert metric_steps(folder.metrics) == {1, 2, 3}
    JsonlSink(folder.metrics, resume_step=2)
    assert text_lines(folder.metrics) == lines[:2]


def test_traces_are_read_at_newlines_alone(tmp_path):
    line = '{"step": 1, "rank": 0, "spans": [["a\u2028b", 0.0, 1.0]]}\n'
    (tmp_path / "trace.jsonl").write_text(line, encoding="utf-8")
    assert read_trace(tmp_path / "trace.jsonl") == {1: {0: [("a\u2028b", 0.0, 1.0)]}}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_data_rows_are_read_at_newlines_alone(tmp_path, name):
    with writing(tmp_path / name) as file:
        file.write(f'{{"prompt": {RAW},\r "id": 1}}\n\x0c\n{{"prompt": "b"}}'.encode())
    assert list(file_rows(tmp_path / name)) == [{"prompt": json.loads(RAW), "id": 1}, {"prompt": "b"}]


def test_a_judges_stored_verdicts_are_read_at_newlines_alone(tmp_path):
    (tmp_path / "cache").write_text(f'{{"key": "k",\r "verdict": {{"why": {RAW}}}}}\n', encoding="utf-8")
    assert VerdictCache(tmp_path / "cache").get("k") == (True, {"why": json.loads(RAW)})


ROWS = f'{{"id": 1, "answer": "4",\r "response": "\\\\boxed{{4}}", "note": {RAW}}}\n{{"id": 2, "answer": "4", "response": {RAW}}}\n'


def test_score_reads_lines_from_a_file_and_from_stdin_alike(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + ROWS.encode())
    config, thinking = reward_config("rewards.math:verify", ["mode=instruct"], 1)
    found = []
    for path in (str(tmp_path / "rows.jsonl"), "-"):
        with open(tmp_path / "rows.jsonl", encoding="utf-8") as given_in:
            monkeypatch.setattr(sys, "stdin", given_in)
            out = io.StringIO()
            assert score_file(config, thinking, path, out, io.StringIO()) == 0
            found.append([(row["id"], row["value"]) for row in map(json.loads, out.getvalue().split("\n")[:-1])])
    assert found == [[(1, 1.0), (2, 0.0)]] * 2

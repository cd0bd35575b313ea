"""What the timeline draws is what was traced."""

import json

import pytest

from cascade_rl.report.load import StageView
from cascade_rl.report.timeline import _rows, duration, median_step, merged, read_trace, timeline_figure
from cascade_rl.tracking.trace import Trace, append_trace


def line(step, rank, *spans):
    return json.dumps({"step": step, "rank": rank, "spans": spans})


def view(folder):
    return StageView("m", "rl", "i", None, folder, "running", 0.0, [], {}, {}, [])


def test_what_a_trace_writes_is_read(tmp_path):
    trace = Trace()
    trace.add("generate", 0.0, 2.5)
    trace.add("reward", 1.0, 3.0)
    append_trace(tmp_path / "trace.jsonl", [trace.line(7, 1)])
    assert read_trace(tmp_path / "trace.jsonl") == {7: {1: [("generate", 0.0, 2.5), ("reward", 1.0, 3.0)]}}


def test_torn_lines_are_passed_over_and_later_attempts_count(tmp_path):
    path = tmp_path / "trace.jsonl"
    lines = [line(2, 0, ["train", 0, 9.0]), "{", line(1, 0, ["train", 0, 1.0]), line(2, 0, ["train", 0, 2.0]), "[1]"]
    path.write_text("\n".join(lines) + '\n{"step": 3, "ra')
    assert read_trace(path) == {1: {0: [("train", 0.0, 1.0)]}, 2: {0: [("train", 0.0, 2.0)]}}
    assert read_trace(tmp_path / "none") == {}


@pytest.mark.parametrize(("seconds", "step"), [([5.0], 1), ([9.0, 1.0, 4.0], 3), ([4.0, 1.0, 3.0, 2.0], 4)])
def test_the_median_step_is_that_of_the_slowest_rank(seconds, step):
    trace = {n: {0: [("train", 0.0, 0.5)], 1: [("train", 0.0, s)]} for n, s in enumerate(seconds, 1)}
    assert median_step(trace) == step
    assert duration(trace[step]) == sorted(seconds)[(len(seconds) - 1) // 2]


def test_overlapping_spans_are_one_bar():
    spans = [
        ("reward", 3.0, 4.0),
        ("reward", 0.0, 1.0),
        ("train", 0.0, 9.0),
        ("reward", 0.5, 2.0),
        ("reward", 2.0, 2.5),
    ]
    assert merged(spans, "reward") == [(0.0, 2.5), (3.0, 1.0)]


def test_rows_are_ranks_and_lanes_in_their_order():
    ranks = {1: [("train", 0.0, 1.0), ("generate", 0.0, 1.0)], 0: [("own", 0.0, 1.0)]}
    assert _rows(ranks) == [(0, "generate"), (0, "train"), (0, "own"), (1, "generate"), (1, "train"), (1, "own")]
    assert len(_rows({rank: [("train", 0.0, 1.0)] for rank in range(64)})) == 4


def test_a_figure_is_drawn_where_there_is_a_trace(tmp_path):
    assert timeline_figure(view(tmp_path), tmp_path / "t.png") is None
    lines = [line(s, r, ["generate", 0, 1 + r], ["odd", 0.5, 2]) for s in (1, 2, 3) for r in range(6)]
    (tmp_path / "trace.jsonl").write_text("\n".join(lines))
    assert timeline_figure(view(tmp_path), tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("line", ["[" * 100_000, '{"step": Infinity, "rank": 0, "spans": []}',
                                  '{"step": 2, "rank": 0, "spans": [["train", 0, Infinity]]}',
                                  '{"step": 2, "rank": 0, "spans": [["train", 0, 1%s]]}' % ("0" * 400)])  # fmt: skip
def test_a_damaged_line_of_a_trace_is_skipped(tmp_path, line):
    path = tmp_path / "trace.jsonl"
    path.write_text(line + '\n{"step": 1, "rank": 0, "spans": [["train", 0.0, 1.5]]}\n')
    assert read_trace(path) == {1: {0: [("train", 0.0, 1.5)]}}

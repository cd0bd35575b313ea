"""Rows of a benchmark: which are asked, under which number, and how odd ones are left out."""

import io
import json
from pathlib import Path

import pytest
import torch

from cascade_rl.data.template import Template
from cascade_rl.models.tiny_qwen3 import build_tokenizer
from cascade_rl.recipe import BenchmarkConfig, TemplateConfig
from cascade_rl.stages.context import Context, StopFlag
from cascade_rl.stages.measure import Benchmarks
from cascade_rl.store import Job, PlannedBenchmark
from cascade_rl.training.ranks import Ranks
from cascade_rl.types import CascadeError

GRADER = "def score(response): return 0.0\ndef exact(response, answer): return 0.0\n"


def asked(tmp_path: Path, rows, reward="score"):
    """(number and text of each question, what was said)."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "measured.py").write_text(GRADER)
    config = BenchmarkConfig(name="b", data=[{"source": "rows.jsonl"}], reward={"use": f"measured:{reward}"})
    job = Job.model_validate(
        {"task": "evaluate", "run": "r", "name": "s", "identity": "i", "folder": tmp_path,
         "recipe_path": tmp_path / "r.yaml", "model": "x", "template": {}, "seed": 1, "dtype": "float32",
         "benchmarks": [PlannedBenchmark(config=config, identity="i")]}
    )  # fmt: skip
    out, tokenizer = io.StringIO(), build_tokenizer()
    template = Template(TemplateConfig(), tokenizer)
    template.install()
    context = Context(job, Ranks(0, 1, torch.device("cpu")), StopFlag(), out)
    with Benchmarks(context, template, [tmp_path], live=False) as benchmarks:
        questions = benchmarks._questions["b"]
    return [(question.row, tokenizer.decode(question.token_ids)) for question in questions], out.getvalue()


def test_odd_rows_are_named_and_the_others_keep_their_numbers(tmp_path):
    odd = [{"prompt": "\ud83d"}, {"answer": 1}, {"messages": [{"role": "narrator", "content": "x"}]}]
    questions, said = asked(tmp_path, [{"prompt": "a"}, *odd, {"prompt": "b", "tools": [{"name": "f"}]}])
    assert [row for row, _ in questions] == [0, 4]
    assert "<tools>" in questions[1][1]
    assert "3 of 5" in said
    with pytest.raises(CascadeError, match="row 0"):
        asked(tmp_path, odd)


def test_a_reward_without_its_column_stops_before_an_engine(tmp_path):
    """Rows of the hub are first read here."""
    asked(tmp_path, [{"prompt": "a"}, {"prompt": "b", "answer": 1}], "exact")
    with pytest.raises(CascadeError, match="benchmark b.*`answer`"):
        asked(tmp_path, [{"prompt": "a", "anser": 1}], "exact")

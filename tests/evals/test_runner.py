import math

import pytest

from cascade_rl.evals.registry import resolve_benchmark
from cascade_rl.evals.runner import Sample, aggregate, append_sample, pass_at_k, read_samples
from cascade_rl.recipe import BenchmarkByName, BenchmarkConfig
from cascade_rl.types import CascadeError

CONFIG = BenchmarkConfig(name="b", data=[{"source": "x"}], reward={"use": "a:b"}, samples=2)


def sample(row, index, value, error=None):
    return Sample(row, index, value, 10, False, error, "text")


def test_interval_by_hand():
    # row means 1, 0.5, 0: mean 0.5, sample variance 0.25, standard error sqrt(0.25 / 3)
    result = aggregate([sample(0, 0, 1.0), sample(0, 1, 1.0), sample(1, 0, 1.0), sample(1, 1, 0.0),
                        sample(2, 0, 0.0), sample(2, 1, 0.0)], CONFIG)  # fmt: skip
    assert result["value"] == 0.5
    assert result["stderr"] == pytest.approx(math.sqrt(0.25 / 3))
    assert result["ci95"] == [0.0, 1.0]  # 1.96 * 0.2887 = 0.566, cut to the possible range
    assert result["pass_at_k"] == {"1": 0.5, "2": pytest.approx(2 / 3)}
    assert result["rows"] == 3


def test_scores_that_are_no_shares_keep_their_interval():
    # means -1 and -0.5: mean -0.75, sample variance 0.125, standard error 0.25
    result = aggregate([sample(0, 0, -1.0), sample(1, 0, -0.5)], CONFIG)
    assert result["ci95"] == [pytest.approx(-0.75 - 0.49), pytest.approx(-0.75 + 0.49)]


def test_failed_graders_are_left_out_and_counted():
    result = aggregate([sample(0, 0, 1.0), sample(0, 1, 0.0, error="down")], CONFIG)
    assert result["value"] == 1.0
    assert result["errors"] == 1


def test_pass_at_k_by_hand():
    # 1 of 4 right: 1 - C(3,2)/C(4,2) = 0.5
    assert pass_at_k([[1.0, 0.0, 0.0, 0.0]], 2) == 0.5
    assert pass_at_k([[0.0] * 4, [1.0] * 4], 3) == 0.5


def test_a_torn_last_line_is_ignored(tmp_path):
    path = tmp_path / "s.jsonl"
    with open(path, "w") as file:
        append_sample(file, sample(0, 0, 1.0))
        file.write('{"row": 1, "ind')
    assert read_samples(path) == [sample(0, 0, 1.0)]
    assert read_samples(tmp_path / "none") == []


def test_shipped_benchmarks_by_name():
    assert resolve_benchmark("aime24").samples == 64  # P1 section 8.1
    local = resolve_benchmark(BenchmarkByName(use="gsm8k", name="gsm8k-mini", source="here.jsonl", limit=8, samples=2))
    assert (local.name, local.samples, local.data[0].source, local.data[0].limit) == ("gsm8k-mini", 2, "here.jsonl", 8)
    assert local.data[0].config is None
    with pytest.raises(CascadeError, match=r"'aime26'.* aime25\b"):
        resolve_benchmark("aime26")


def test_sampling_is_the_papers_unless_said_otherwise():
    """Half a section must not fall back to the sampling of RL."""
    own = BenchmarkConfig(name="b", data=[{"source": "x"}], reward={"use": "a:b"}, sampling={"max_new_tokens": 9})
    assert (own.sampling.temperature, own.sampling.top_p, own.sampling.max_new_tokens) == (0.6, 0.95, 9)
    shipped = resolve_benchmark(BenchmarkByName(use="aime24", sampling={"max_new_tokens": 9})).sampling
    assert (shipped.temperature, shipped.top_p, shipped.max_new_tokens) == (0.6, 0.95, 9)
    hotter = resolve_benchmark(BenchmarkByName(use="aime24", sampling={"temperature": 1.0})).sampling
    assert (hotter.temperature, hotter.top_p, hotter.max_new_tokens) == (1.0, 0.95, 65536)


def test_a_completion_that_is_no_text_is_kept_like_any_other(tmp_path):
    odd = Sample(1, 0, 1.0, 3, False, None, "x\ud83dy")
    with open(tmp_path / "s.jsonl", "w", encoding="utf-8") as file:
        for one in (odd, sample(2, 0, 1.0)):
            append_sample(file, one)
    assert read_samples(tmp_path / "s.jsonl") == [odd, sample(2, 0, 1.0)]


def test_a_line_nested_too_deeply_is_ignored(tmp_path):
    path = tmp_path / "s.jsonl"
    with path.open("w") as file:
        append_sample(file, sample(0, 0, 1.0))
        file.write("[" * 200_000 + "]" * 200_000 + "\n")
        append_sample(file, sample(1, 0, 0.0))
    assert read_samples(path) == [sample(0, 0, 1.0), sample(1, 0, 0.0)]

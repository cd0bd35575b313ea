"""Accuracy, sections and margins of pairs, against sums done by hand."""

import math

import pytest

from cascade_rl.evals.benchmarks import PAIRS
from cascade_rl.evals.pairs import BINS, JudgedPair, aggregate_pairs, histogram
from cascade_rl.evals.registry import pairs_identity, resolve_benchmark, resolve_pairs
from cascade_rl.recipe import DataSource
from cascade_rl.recipe.measuring import PairBenchmark
from cascade_rl.types import CascadeError


def judged(category, *margins):
    return [JudgedPair(category, 1.0 + margin, 1.0) for margin in margins]


def test_the_share_told_right_with_ties_as_half():
    result = aggregate_pairs("p", judged("a", 1, 2, -1, 0))
    assert result["value"] == (1 + 1 + 0 + 0.5) / 4
    # Sample variance of 1, 1, 0, 0.5 is (3 * .140625 - .. ) = 0.6875 / 3, divided by 4 for the mean.
    assert result["stderr"] == pytest.approx(math.sqrt(0.6875 / 3 / 4))
    assert result["ci95"] == [pytest.approx(0.625 - 1.96 * result["stderr"]), 1.0]
    assert (result["rows"], result["ties"], result["margin"]) == (4, 1, 0.5)
    assert result["categories"]["a"]["value"] == 0.625
    assert result["sections"] == {}


def test_sections_count_alike_and_weights_change_their_inside():
    pairs = [*judged("x", 1, 1, -1, -1), *judged("y", 1), *judged("z", 1, -1, -1, -1), *judged("outside", -1)]
    sections = {"one": ["x", "y"], "two": ["z"], "absent": ["w"]}
    result = aggregate_pairs("p", pairs, sections)
    assert result["sections"]["one"] == {"value": pytest.approx(3 / 5), "rows": 5}
    assert result["value"] == pytest.approx((3 / 5 + 1 / 4) / 2)
    assert set(result["sections"]) == {"one", "two"}
    assert result["categories"]["outside"]["value"] == 0
    weighted = aggregate_pairs("p", pairs, sections, {"y": 4.0})
    assert weighted["sections"]["one"]["value"] == pytest.approx((4 * 0.5 + 4 * 1) / 8)
    # y is one pair: no variance. x: shares 1/2 * 4/8, variance of the mean 1/3/4; z: share 1/2, 0.25/4.
    assert weighted["stderr"] == pytest.approx(math.sqrt((1 / 4) ** 2 / 12 + (1 / 2) ** 2 * 0.25 / 4))


def test_rewardbench_weighs_mathematics_as_code():
    bench = PAIRS["rewardbench"]
    codes = [name for name in bench.sections["reasoning"] if name.startswith("hep")]
    pairs = [*judged("math-prm", *[1] * 447), *(p for name in codes for p in judged(name, *[-1] * 164))]
    result = aggregate_pairs("rewardbench", pairs, bench.sections, bench.weights)
    assert result["sections"]["reasoning"]["value"] == pytest.approx(0.5)
    assert list(bench.sections) == ["chat", "chat hard", "safety", "reasoning"]
    assert sum(len(members) for members in bench.sections.values()) == 23


def test_a_histogram_has_a_border_at_zero_and_loses_nothing():
    found = histogram([-2.0, -0.001, 0.0, 0.001, 1.0, 2.0])
    assert len(found["counts"]) == BINS == len(found["edges"]) - 1
    assert found["edges"][BINS // 2] == pytest.approx(0.0)
    assert sum(found["counts"][: BINS // 2]) == 3  # the tie is among the wrong
    assert sum(found["counts"][BINS // 2 :]) == 3
    assert (found["counts"][0], found["counts"][-1]) == (1, 1)
    assert sum(histogram([0.0, 0.0])["counts"]) == 2


@pytest.mark.parametrize(
    ("pairs", "message"),
    [([], "no pairs"), ([JudgedPair("a", math.nan, 0.0)], "finite"), (judged("b", 1), "none")],
)
def test_what_cannot_be_measured(pairs, message):
    with pytest.raises(CascadeError, match=message):
        aggregate_pairs("p", pairs, {"one": ["a"]})


def test_names():
    assert resolve_pairs("rewardbench").data[0].source == "allenai/reward-bench"
    with pytest.raises(CascadeError, match=r"'rewardbensh'.* rewardbench\b"):
        resolve_pairs("rewardbensh")
    with pytest.raises(CascadeError, match=r"held-out.*name"):
        resolve_pairs(PairBenchmark(name="held-out", data=[DataSource(source="a.jsonl")]))
    with pytest.raises(CascadeError, match=r"`evaluate`.*reward_model"):
        resolve_benchmark("rewardbench")


def test_a_result_is_known_by_its_rows_and_its_sums(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n')
    one = PairBenchmark(name="p", data=[DataSource(source="a.jsonl")])
    before = pairs_identity(one, tmp_path / "r.yaml")
    assert pairs_identity(one.model_copy(update={"weights": {"a": 2.0}}), tmp_path / "r.yaml") != before
    (tmp_path / "a.jsonl").write_text('{"x": 2}\n')
    assert pairs_identity(one, tmp_path / "r.yaml") != before

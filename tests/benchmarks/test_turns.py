import pytest

from benchmarks.grpo.turns import Side


def test_sides_take_one_step_when_told_and_end_with_their_orders(tmp_path):
    with (
        Side("a", "tests.benchmarks.echo", {"colour": "red"}, tmp_path / "a") as a,
        Side("b", "tests.benchmarks.echo", {"colour": "blue"}, tmp_path / "b") as b,
    ):
        a.get_ready()
        b.get_ready()
        first, second = a.step({"n": 1}), b.step({"n": 2})
        assert (first["told"], first["colour"]) == ({"n": 1}, "red")
        assert (second["told"], second["colour"]) == ({"n": 2}, "blue")
        assert first["step_s"] > 0
    assert a._process.returncode == 0  # ended by itself, not killed


def test_a_side_that_breaks_is_shown_with_the_end_of_its_log(tmp_path):
    with Side("a", "tests.benchmarks.echo", {"colour": "red"}, tmp_path / "a") as a:
        a.get_ready()
        with pytest.raises(SystemExit, match="broken as told"):
            a.step({"break": True})

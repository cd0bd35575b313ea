"""What the benchmarks make of their measurements, by hand."""

import json
import random
import subprocess
import sys

import pytest

from benchmarks import grpo_vs_trl, learning
from benchmarks.common import REPOSITORY, environment, table
from benchmarks.grpo.gym import working
from benchmarks.offline import against_trl


def test_training_is_all_that_is_not_generation_sync_or_waiting():
    step = {"step_s": 10.0, "cpu_s": 9.0, "generation_s": 4.0, "reward_s": 1.0, "sync_s": 0.5, "update_s": 3.0}
    assert grpo_vs_trl.split({**step, "lengths": [1, 4]}) == {
        "generation": 4.0, "reward": 1.0, "sync": 0.5, "training": 4.5, "whole step": 10.0, "CPU": 9.0,
        "ms per token": 2000.0,
    }  # fmt: skip


def test_the_headline_is_against_the_best_of_the_others(capsys):
    medians = {
        "ours": {"whole step": 2.0, "training": 1.0, "CPU": 1.5, "ms per token": 0.5},
        "vllm": {"whole step": 5.0, "training": 3.5, "CPU": 3.0, "ms per token": 1.0},
        "hf": {"whole step": 9.0, "training": 3.0, "CPU": 6.0, "ms per token": 9.0},
    }
    found = {"best": "vllm", "whole step": 2.5, "training": 3.5, "CPU": 2.0, "ms per token": 2.0}
    assert grpo_vs_trl.ratios(medians) == found
    said = "2.50 times as fast as TRL's best (vllm); training 3.50 times, per token 2.00, in CPU time 2.00"
    assert said in capsys.readouterr().out
    assert grpo_vs_trl.ratios({"ours": medians["ours"]}) == {}


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ([0.7, 0.9], "+0.000; within each other's spread; ours is not worse"),
        ([0.5, 0.7], "-0.200; not within each other's spread; ours is WORSE"),
        ([0.9, 1.1], "+0.200; not within each other's spread; ours is not worse"),
        ([0.8], "one seed says nothing"),
    ],
)
def test_curves_are_compared_by_their_last_steps(capsys, ours, verdict):
    # TRL's two seeds end at 0.7 and 0.9: mean 0.8, spread 0.141. What was before the last ten steps does not count.
    curves = {
        "ours": [[0.0] * 5 + [value] * 10 for value in ours],
        "trl": [[0.1] * 5 + [value] * 10 for value in ([0.7, 0.9] if len(ours) > 1 else [0.8])],
    }
    found = learning.compare(curves)
    assert verdict in capsys.readouterr().out
    assert found["means"]["trl"] == pytest.approx(0.8)
    assert found["each"]["ours"] == pytest.approx(ours)


class Never(random.Random):
    def random(self):
        return 1.0


class Always(random.Random):
    def random(self):
        return 0.0


def test_a_teacher_who_does_not_slip_is_right_and_one_who_does_is_not():
    assert working(58, 67, Never()) == "8+7+0=15\n5+6+1=12\n\\boxed{125}"
    assert working(3, 4, Never()) == "3+4+0=7\n\\boxed{7}"
    assert working(13, 92, Always()) == "3+2+0=6\n1+9+0=11\n\\boxed{116}"


def test_tables_line_up():
    assert table(("", "seconds"), [("ours", 1.5), ("theirs", "-")]) == (
        "        seconds\nours      1.500\ntheirs        -"
    )


@pytest.mark.slow
def test_both_sides_run_and_the_ratio_is_printed(tmp_path):
    small = "--hidden-size 64 --layers 2 --prompts 2 --group-size 4 --trl-batch 4 --equal-tokens 8 --max-tokens 48"
    result = subprocess.run(
        [sys.executable, "benchmarks/grpo_vs_trl.py", *small.split(), "--median-tokens", "16", "--lengths", "uneven",
         "--warm-up", "1", "--steps", "1", "--sides", "ours,vllm,hf", "--json", str(tmp_path / "found.json")],
        cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=800,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("TRL's best") == 2  # with a free and with a slow reward
    assert (tmp_path / "found.json").is_file()


@pytest.mark.slow
def test_packed_padded_and_single_rollouts_have_the_same_gradient():
    result = subprocess.run(
        [sys.executable, "benchmarks/packing.py", "--rollouts", "12", "--longest", "60", "--median", "20", "--rounds", "1"],
        cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "padded / packed" in result.stdout


def test_an_offline_stage_is_compared_with_the_fastest_of_the_others(capsys):
    """By the clock the second side of TRL's is the fastest, by processor time the first."""
    step = {"tokens": 100, "positions": 120, "peak": 2**21, "loss": 1.0}
    steps = {
        "ours": [{**step, "step_s": 1.0, "cpu_s": 1.0}, {**step, "step_s": 1.0, "cpu_s": 1.0}],
        "trl-padded": [{**step, "step_s": 4.0, "cpu_s": 1.25}, {**step, "step_s": 4.0, "cpu_s": 1.25}],
        "trl-free": [{**step, "step_s": 2.0, "cpu_s": 2.0}, {**step, "step_s": 2.0, "cpu_s": 2.0}],
    }
    found = against_trl.report("equal lengths", steps)
    assert found["ours"] == {
        "tokens_per_s": 100.0, "tokens_per_cpu_s": 100.0, "peak_mib": 2.0, "tokens": 200, "positions": 240,
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "ours / trl-free: 2.00 (2.00 to 2.00) times the tokens/s, 1.00 times the peak" in said
    assert "ours / trl-padded: 1.25 (1.25 to 1.25) times the tokens per CPU second" in said


def test_a_side_that_borrows_from_ours_is_compared_apart_and_turn_by_turn(capsys):
    """The sides' turns: 1.0, 1.0 and 2.0 seconds against 2.0, 4.0 and 3.0, so 2.0, 4.0 and 1.5 times."""
    step = {"tokens": 100, "positions": 100, "peak": 2**20, "loss": 1.0}
    seconds = {"ours": (1.0, 1.0, 2.0), "trl-free": (2.0, 4.0, 3.0), "trl-free-segments": (0.5, 0.5, 0.5)}
    steps = {name: [{**step, "step_s": s, "cpu_s": s} for s in those] for name, those in seconds.items()}
    against_trl.report("uneven lengths", steps, borrowing=["trl-free-segments"])
    said = capsys.readouterr().out
    assert "ours / trl-free: 2.00 (1.50 to 4.00) times the tokens/s" in said
    assert "ours / trl-free-segments: 0.50 (0.25 to 0.50) times the tokens/s" in said


@pytest.mark.slow
def test_sft_sides_train_the_same_rows_padded_padding_free_and_packed(tmp_path):
    small = "--hidden-size 64 --layers 2 --batch 8 --warm-up 0 --steps 1 --lengths uneven --vocabulary 512"
    result = subprocess.run(
        [sys.executable, "benchmarks/sft_vs_trl.py", *small.split(), "--json", str(tmp_path / "found.json")],
        cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=800,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads((tmp_path / "found.json").read_text())["uneven"]
    assert found["ours"]["positions"] == found["ours"]["tokens"] == found["trl-free"]["positions"]
    assert found["trl-padded"]["positions"] > found["trl-padded"]["tokens"] == found["ours"]["tokens"]
    assert "of other rows" in result.stdout

"""What a person sees: messages, exit codes, and never a stack trace for a slip."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cascade_rl.cli.launching import gpus

ROOT = Path(__file__).parents[2]
QUICKSTART = "recipes/quickstart.yaml"


def cli(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "cascade_rl", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_check_shows_the_plan_and_the_arithmetic(tmp_path):
    result = cli("check", QUICKSTART, "--root", str(tmp_path))
    assert result.returncode == 0, result.stderr
    flat = " ".join(result.stdout.split())
    assert "32 prompts x 8 = 256" in flat
    assert "would run: sft-1, sft-2, reward-model, rlhf, if-rl, math-rl, code-rl, swe-rl" in flat
    assert not list(tmp_path.iterdir())  # looking leaves nothing


@pytest.mark.parametrize("columns", [80, 200])
def test_no_name_is_broken_in_a_narrow_terminal(tmp_path, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = [line.split() for line in cli("check", QUICKSTART, "--root", str(tmp_path)).stdout.splitlines()]
    (stage,) = (line for line in lines if line[:3] == ["reward-model", "reward_model", "sft-2"])
    assert len(stage[3]) == 12, "the identity, whole"
    steps = next(line for line in lines if line[0:1] == ["reward-model"] and "steps;" in line)
    assert (steps is stage) == (columns == 200)


def test_check_shows_gates(tmp_path):
    gates = (
        "gates=[{benchmark: sums, max_drop: 3, min_value: 40, action: warn, exceptions: [{name: x, stages: [if-rl]}]}]"
    )
    result = cli("check", QUICKSTART, "--root", str(tmp_path), "--set", gates)
    assert "gates: sums (max drop 3 below previous, at least 40, but for x after if-rl): warn" in result.stdout


def test_check_prints_the_resolved_recipe(tmp_path):
    text = cli("check", QUICKSTART, "--resolved", "--root", str(tmp_path)).stdout
    (tmp_path / "again.yaml").write_text(text)
    assert cli("check", str(tmp_path / "again.yaml"), "--root", str(tmp_path)).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "recipes/none.yaml"), "no such file"),
        (("check", "recipes"), "is a folder"),
        (("check", QUICKSTART, "--set", "stages.math-rl.stepz=3"), "did you mean steps?"),
        (("check", QUICKSTART, "--set", "stages.sft-1.data.0.source=gone.jsonl"), "gone.jsonl"),
        (("check", QUICKSTART, "--processes", "5"), "does not divide over 5 ranks"),
        (("check", QUICKSTART, "--set", "stages.math-rl.reward.use=rewards.math:verfy"), "did you mean verify?"),
        (("check", QUICKSTART, "--set", "stages.math-rl.rollout.max_new_tokens=4096"), "512"),
        (("check", QUICKSTART, "--set", "gates=[{benchmark: sms, max_drop: 3}]"), "did you mean sums?"),
        (("check", QUICKSTART, "--set", "stages.math-rl.from=sft-1"), "it is init here"),
        (("check", QUICKSTART, "--set", "stages.math-rl.learning_rate=1e6"), "must be above 0 and at most 1"),
        (("check", QUICKSTART, "--set", "seed=-1"), "seed: must be at least 0 and at most 4294967295, not -1"),
        (
            ("check", QUICKSTART, "--set", "stages.math-rl.betas=[0.9, 1.5]"),
            "betas must be at least 0 and below 1, not [0.9, 1.5]",
        ),
        (("check", QUICKSTART, "--set", "model_args.hidden_sizes=64"), "did you mean hidden_size?"),
        (("check", QUICKSTART, "--set", "model_args.hidden_size=100"), "must be a multiple of 64, not 100"),
        (("check", QUICKSTART, "--set", "model_args.layers=two"), "must be a whole number, at least 1, not 'two'"),
        (("check", QUICKSTART, "--set", "stages.sft-1.data.0.args.digits=3"), "digits must be"),
        (("run", QUICKSTART, "--until", "nothing"), "no stage 'nothing'"),
        (("run", QUICKSTART, "--from", "nothing"), "no stage 'nothing'"),
        (("run", QUICKSTART, "--from", "math-rl", "--until", "sft-1"), "nothing would run"),
        (("run", QUICKSTART, "--branch", "a/b"), "--branch: 'a/b' will not do as a name"),
        (("run", QUICKSTART, "--processes", "5"), "32 does not divide over 5 ranks"),
        (("status", "nothing"), "no run 'nothing'"),
        (("report", "nothing"), "no run 'nothing'"),
        (("rollouts", "nothing", "x"), "no run 'nothing'"),
    ],
)
def test_slips_end_in_one_message(tmp_path, arguments, message):
    result = cli(*arguments, "--root", str(tmp_path))
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_a_root_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    result = cli("run", QUICKSTART, "--root", str(tmp_path / "file"))
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: Not a directory: {tmp_path / 'file'}")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [("chek", QUICKSTART), ("check", QUICKSTART, "--processes", "0"), ("run",), ()])
def test_a_wrong_command_line(arguments):
    result = cli(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "did you mean check?" in result.stderr or arguments[0:1] != ("chek",)


def test_a_recipe_as_first_word_means_run(tmp_path):
    result = cli(QUICKSTART, "--until", "nothing", "--root", str(tmp_path))
    assert "no stage 'nothing'" in result.stderr


def test_status_of_a_run_that_has_not_begun(tmp_path):
    from cascade_rl.orchestrator.run import Wishes, prepare
    from cascade_rl.recipe import load_recipe
    from cascade_rl.store import Store

    prepare(load_recipe(ROOT / QUICKSTART), Store(tmp_path), Wishes(), 1, lambda _: None)
    facts = json.loads(cli("status", "quickstart", "--json", "--root", str(tmp_path)).stdout)
    assert [(s["name"], s["status"]) for s in facts["stages"]] == [
        (name, "pending")
        for name in ("sft-1", "sft-2", "reward-model", "rlhf", "if-rl", "math-rl", "code-rl", "swe-rl")
    ]
    assert "pending" in cli("status", "quickstart", "--root", str(tmp_path)).stdout
    assert cli("rollouts", "quickstart", "math-rl", "--root", str(tmp_path)).returncode == 1


def test_gpus_are_counted_without_torch(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert gpus() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus() == 0

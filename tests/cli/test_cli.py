"""What a person sees: messages, exit codes, and never a stack trace for a slip."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cascade_rl.cli.launching import gpus
from tests.messages import mentions

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
    assert "sft-1, sft-2, reward-model, rlhf, if-rl, math-rl, code-rl, swe-rl" in flat
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
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("gates: "))
    assert mentions(line, "sums", "3", "previous", "40", "x", "if-rl", "warn")


def test_check_prints_the_resolved_recipe(tmp_path):
    text = cli("check", QUICKSTART, "--resolved", "--root", str(tmp_path)).stdout
    (tmp_path / "again.yaml").write_text(text)
    assert cli("check", str(tmp_path / "again.yaml"), "--root", str(tmp_path)).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "recipes/none.yaml"), "recipes/none.yaml file"),
        (("check", "recipes"), "recipes folder"),
        (("check", QUICKSTART, "--set", "stages.math-rl.stepz=3"), "stages.math-rl.stepz steps"),
        (("check", QUICKSTART, "--set", "stages.sft-1.data.0.source=gone.jsonl"), "gone.jsonl"),
        (("check", QUICKSTART, "--processes", "5"), "divide 5"),
        (("check", QUICKSTART, "--set", "stages.math-rl.reward.use=rewards.math:verfy"), "'verfy' verify"),
        (
            ("check", QUICKSTART, "--set", "stages.math-rl.rollout.max_new_tokens=4096"),
            "stages.math-rl.rollout.max_new_tokens 4096 512",
        ),
        (("check", QUICKSTART, "--set", "gates=[{benchmark: sms, max_drop: 3}]"), "gates.0.benchmark 'sms' sums"),
        (("check", QUICKSTART, "--set", "stages.math-rl.from=sft-1"), "stages.math-rl.from init"),
        (("check", QUICKSTART, "--set", "stages.math-rl.learning_rate=1e6"), "stages.math-rl.learning_rate 0 1"),
        (("check", QUICKSTART, "--set", "seed=-1"), "seed 0 4294967295 -1"),
        (("check", QUICKSTART, "--set", "stages.math-rl.betas=[0.9, 1.5]"), "stages.math-rl.betas 1.5 1"),
        (("check", QUICKSTART, "--set", "model_args.hidden_sizes=64"), "model_args.hidden_sizes hidden_size"),
        (("check", QUICKSTART, "--set", "model_args.hidden_size=100"), "model_args.hidden_size multiple 64 100"),
        (("check", QUICKSTART, "--set", "model_args.layers=two"), "model_args.layers whole 'two'"),
        (("check", QUICKSTART, "--set", "stages.sft-1.data.0.args.digits=3"), "stages.sft-1.data.0 digits"),
        (("run", QUICKSTART, "--until", "nothing"), "stage 'nothing'"),
        (("run", QUICKSTART, "--from", "nothing"), "stage 'nothing'"),
        (("run", QUICKSTART, "--from", "math-rl", "--until", "sft-1"), "--from --until nothing"),
        (("run", QUICKSTART, "--branch", "a/b"), "--branch 'a/b' name"),
        (("run", QUICKSTART, "--processes", "5"), "divide 32 5"),
        (("status", "nothing"), "run 'nothing'"),
        (("report", "nothing"), "run 'nothing'"),
        (("rollouts", "nothing", "x"), "run 'nothing'"),
    ],
)
def test_slips_end_in_one_message(tmp_path, arguments, words):
    result = cli(*arguments, "--root", str(tmp_path))
    assert result.returncode == 1
    assert mentions(result.stderr, *words.split()), result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_a_root_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    result = cli("run", QUICKSTART, "--root", str(tmp_path / "file"))
    assert result.returncode == 1
    assert mentions(result.stderr, "directory", str(tmp_path / "file"))
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [("chek", QUICKSTART), ("check", QUICKSTART, "--processes", "0"), ("run",), ()])
def test_a_wrong_command_line(arguments):
    result = cli(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert mentions(result.stderr, "check") or arguments[0:1] != ("chek",)


def test_a_recipe_as_first_word_means_run(tmp_path):
    result = cli(QUICKSTART, "--until", "nothing", "--root", str(tmp_path))
    assert mentions(result.stderr, "stage", "'nothing'")


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

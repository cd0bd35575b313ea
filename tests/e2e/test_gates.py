"""Whole runs through a gate that shuts: what stops, what is rolled back, and that the same command decides the same."""

import json
import re
import subprocess
import sys

import pytest

from tests.e2e import cascade

pytestmark = pytest.mark.slow

ALWAYS = "gates=[{benchmark: sums, min_value: 101, after: [sft-2], action: %s}]"
"""No share is above 100, so this gate shuts whatever was learnt."""


def cli(root, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "cascade_rl", *arguments, "--root", str(root)],
        cwd=cascade.REPOSITORY, env=cascade.environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def test_a_gate_stops_the_run_until_it_is_told_to_let_the_stage_pass(own):
    gated = ("run", cascade.RECIPE, "--set", "name=gated", "--set", ALWAYS % "stop")
    for _ in range(2):
        result = cli(own, *gated)
        assert result.returncode == 1
        assert re.search(r"error: .*\bgate\b", result.stderr)
        assert "Traceback" not in result.stderr
        assert "101: stop" in result.stderr
    allowed = "gates.0.exceptions=[{name: accepted-sft-2, stages: [sft-2]}]"
    assert allowed in result.stderr
    status = json.loads(cli(own, "status", "gated", "--json").stdout)
    assert [decision["verdict"] for decision in status["gates"]] == ["stop"]
    result = cli(own, *gated, "--set", allowed)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "accepted-sft-2" in result.stdout
    assert "[3/3] math-rl (rl" not in result.stdout  # all is complete: gates change no identity


def test_a_rolled_back_stage_is_as_if_it_had_not_been(own):
    gated = (
        "run",
        cascade.RECIPE,
        "--set",
        "name=rolled",
        "--set",
        ALWAYS % "rollback",
        "--set",
        "stages.math-rl.steps=1",
    )
    result = cli(own, *gated)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "rolled back" in result.stdout
    stages = {stage["name"]: stage for stage in json.loads((own / "runs/rolled/run.json").read_text())["stages"]}
    assert (stages["sft-2"]["rolled_back"], stages["math-rl"]["parent"]) == (True, "sft-1")
    record = json.loads((own / stages["math-rl"]["directory"] / "stage.json").read_text())
    assert record["parent"] == {"name": "sft-1", "identity": stages["sft-1"]["identity"]}
    assert "sft-2 (rolled back)" in (own / "runs/rolled/report/index.html").read_text()
    again = cli(own, *gated)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "[3/3] math-rl (rl" not in again.stdout
    skipped = cli(own, "check", cascade.RECIPE, "--set", "stages.sft-2.skip=true", "--set", "stages.math-rl.steps=1")
    assert stages["math-rl"]["identity"] in skipped.stdout  # and a recipe without the stage shares the result
    difference = json.loads(cli(own, "diff", "tiny", "rolled", "--json").stdout)
    assert [stage["name"] for stage in difference["stages"] if stage["shared"]] == ["model", "sft-1", "sft-2"]

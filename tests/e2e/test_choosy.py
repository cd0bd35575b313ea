"""Dynamic sampling, curriculum and journal in whole runs: killed while it generates, a run ends as the undisturbed one."""

import contextlib
import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.e2e import cascade

pytestmark = pytest.mark.slow
RECIPE = "tests/e2e/choosy.yaml"
TWO = ("-m", "accelerate.commands.launch", "--config_file", "launch/accelerate/cpu-2.yaml")


def run(root, launcher):
    process = cascade.start(root, recipe=RECIPE, launcher=launcher)
    output = cascade.finish(process, root)
    assert process.returncode == 0, output
    return output


def workers_of(root):
    """Stage processes of the run at ``root``."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(root).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def test_two_ranks_killed_while_they_generate(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole, TWO)
    expected = cascade.metrics(whole, "rl", "choosy")
    assert any(row["groups/replaced"] > 0 for row in expected)
    assert any(row["curriculum/dropped_hard"] > 0 for row in expected)
    assert all(row["completions/max_length"] <= 80 for row in expected)  # the rows' own limits
    folder = cascade.folders(broken, RECIPE)["rl"]

    def generating():
        """Step 6 of 6 is on its way, one step after the last saved state: both will have to be done again."""
        path = folder / "rollouts/open/step-000006-rank-0.jsonl"
        return path.exists() and path.read_text().count("\n") > 2

    process = cascade.start(broken, recipe=RECIPE, launcher=TWO)
    cascade.wait_for(lambda: generating() or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    cascade.wait_for(lambda: not workers_of(broken))  # they are told to stop, and keep what they have
    if (folder / "state/step-000006").exists() or (folder / "checkpoint").exists():
        pytest.skip("this machine stood still for so long that the stage had ended before the kill")
    output = run(broken, TWO)
    assert re.search(r"step [56]: \d+ rollouts .*taken over", output)
    assert cascade.weights(broken, "choosy") == cascade.weights(whole, "choosy")
    assert cascade.metrics(broken, "rl", "choosy") == expected
    assert not (folder / "rollouts/open").exists()
    trace = [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
    assert {"sync", "generate", "reward", "train"} <= {lane for line in trace for lane, _, _ in line["spans"]}

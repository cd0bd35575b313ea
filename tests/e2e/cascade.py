"""Starting, killing and inspecting whole runs, of tests/e2e/tiny.yaml unless said otherwise."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from cascade_rl.orchestrator.plan import make_plan
from cascade_rl.recipe import load_recipe
from cascade_rl.store import Store

REPOSITORY = Path(__file__).parents[2]
RECIPE = "tests/e2e/tiny.yaml"
NO_BENCHMARKS = ("--set", "evaluate.after_each_stage=[]")
"""What is measured is no part of a stage's identity: a run that is compared by its weights does without."""


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RANK", "WORLD", "MASTER", "CASCADE_RL_"))}
    # One thread: enough for a tiny model, and sums come out the same on any machine.
    return {**kept, "CASCADE_RL_THREADS": "1", "WANDB_MODE": "offline"}


def start(
    root: Path, *arguments: str, recipe: str = RECIPE, launcher: tuple[str, ...] = (), largest_file: int | None = None
) -> subprocess.Popen:
    """A run as a process group of its own; its output goes to root/output.txt.

    With ``largest_file`` (bytes), writing more to one file fails, as on a full disk.
    """
    root.mkdir(parents=True, exist_ok=True)

    def limit() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    with open(root / "output.txt", "a") as output:
        return subprocess.Popen(
            [sys.executable, *launcher, "-m", "cascade_rl", recipe, "--root", str(root), *arguments],
            cwd=REPOSITORY, env={**environment(), "CASCADE_TEST_ROOT": str(root)}, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=limit,
        )  # fmt: skip


def folders(root: Path, recipe: str = RECIPE) -> dict[str, Path]:
    """Where each stage of ``recipe`` lies or will lie."""
    plan = make_plan(load_recipe(REPOSITORY / recipe), Store(root))
    return {stage.name: stage.folder.path for stage in plan.stages}


def copy_fine_tuned(undisturbed: Path, root: Path) -> Path:
    """The stages before the RL stage of a whole run, copied to ``root``: a run there begins with RL."""
    for folder in undisturbed.glob("store/*"):
        if not folder.name.startswith("math-rl"):
            shutil.copytree(folder, root / "store" / folder.name)
    return root


def finish(process: subprocess.Popen, root: Path, timeout_s: float = 600) -> str:
    """Wait for the run; returns what it printed. Kills it when the guard against hanging strikes."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return (root / "output.txt").read_text()


def children(pid: int) -> list[int]:
    """Stage processes of the supervisor ``pid``, by /proc: fresh ones below it, or forked ones below its warm process."""
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                commands[int(entry.name)] = (entry / "cmdline").read_bytes()
    warm = {each for each, parent in parents.items() if parent == pid and b"cascade_rl.stages.warm" in commands[each]}
    fresh = [each for each, parent in parents.items() if parent == pid and b"stages.worker" in commands[each]]
    return fresh + [each for each, parent in parents.items() if parent in warm and b"stages.warm" in commands[each]]


def weights(root: Path, run: str = "tiny") -> dict[str, str]:
    """SHA-256 of the weights of each of the run's stages."""
    record = json.loads((root / "runs" / run / "run.json").read_text())
    return {
        entry["name"]: hashlib.sha256(
            (root / entry["directory"] / "checkpoint/model.safetensors").read_bytes()
        ).hexdigest()
        for entry in record["stages"]
    }


def metrics(root: Path, stage: str, run: str = "tiny") -> list[dict]:
    """The stage's metrics without what depends on the clock."""
    record = json.loads((root / "runs" / run / "run.json").read_text())
    entry = next(entry for entry in record["stages"] if entry["name"] == stage)
    rows = [json.loads(line) for line in (root / entry["directory"] / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time")} for row in rows]


def resumed(output: str) -> int | None:
    """The step from which a stage resumed, by the console lines of a run; of several the last, None without any."""
    found = re.findall(r"going on from step (\d+)", output)
    return int(found[-1]) if found else None


def unsaved(output: str) -> list[int]:
    """The steps whose state could not be saved, by the warnings of a run."""
    return [int(step) for step in re.findall(r"WARNING: .*state of step (\d+) could not be saved", output)]


def wait_for(condition, timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the run did not get there"
        time.sleep(0.05)


def processes_of(root: Path) -> list[int]:
    """Everything that has the folder on its command line: launcher, supervisors, stage processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if str(root).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def kill_at_state(process: subprocess.Popen, root: Path, step: int) -> None:
    """SIGKILL for all of a run, once that state of its RL stage is there; a launcher's processes have sessions of
    their own."""
    name = f"store/math-rl-*/state/step-{step:06d}"
    wait_for(lambda: list(root.glob(name)) or process.poll() is not None)
    assert process.poll() is None, "it ended before it could be killed"
    for pid in processes_of(root):
        with contextlib.suppress(OSError):
            # Not servers and their guards, which are to see for themselves that their rank is gone.
            if b"vllm.entrypoints" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not processes_of(root), 30)

"""Whole runs with the options that the tiny cascade leaves alone, and with faults at the very end of a stage."""

import json
import os
import shutil
import signal

import pytest

from tests.e2e import cascade

pytestmark = pytest.mark.slow
VARIANTS = "tests/e2e/variants.yaml"


def run(root, *arguments, recipe=cascade.RECIPE, **keys):
    """Returns (exit code, what this start printed)."""
    before = len((root / "output.txt").read_text()) if (root / "output.txt").exists() else 0
    process = cascade.start(root, *arguments, recipe=recipe, **keys)
    output = cascade.finish(process, root)[before:]
    return process.returncode, output


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    root = tmp_path_factory.mktemp("variants")
    code, output = run(root, recipe=VARIANTS)
    assert code == 0, output
    return root


def test_packing_and_whole_epochs(variants):
    packed = cascade.metrics(variants, "packed", "variants")
    assert packed[-1]["epoch"] == 2.0
    # Two passes over 30 rows, several rows to a sequence: fewer steps than the 16 that rows one by one would take.
    assert len(packed) < 10
    assert {row["tokens/padding"] for row in packed} == {0}
    half = len(packed) // 2
    assert sum(row["tokens/trained"] for row in packed[:half]) == sum(row["tokens/trained"] for row in packed[half:])
    epochs = cascade.metrics(variants, "epochs", "variants")
    assert [row["epoch"] for row in epochs] == pytest.approx([(i + 1) / 3 for i in range(6)])


def test_an_optimizer_goes_along_when_asked(variants):
    import torch

    folders = cascade.folders(variants, VARIANTS)
    kept = {name: path / "optimizer.pt" for name, path in folders.items() if (path / "optimizer.pt").exists()}
    assert set(kept) == {"packed", "rl-1", "rl-2"}  # those that another stage inherits from
    # By parameter name, whatever the strategy was.
    steps = {
        name: {entry["step"] for entry in torch.load(path, weights_only=True).values()}
        for name, path in kept.items()
        if name.startswith("rl")
    }
    assert steps["rl-1"] == {2}
    assert steps["rl-2"] == {4}  # its own two on top of the two inherited


@pytest.mark.parametrize(("name", "steps"), [("epochs", 6), ("rl-2", 2)])
def test_resuming_at_the_last_step(variants, tmp_path, name, steps):
    """Killed when the last state is written and the checkpoint not yet: it is published, and nothing trained again."""
    folders = cascade.folders(variants, VARIANTS)
    shutil.copytree(variants, tmp_path, dirs_exist_ok=True)
    order = list(folders)
    for later in order[order.index(name) :]:
        shutil.rmtree(tmp_path / folders[later].relative_to(variants))
    before, after = (root / folders[name].relative_to(variants) for root in (variants, tmp_path))
    process = cascade.start(tmp_path, "--until", name, recipe=VARIANTS)
    cascade.wait_for(lambda: (after / f"state/step-{steps:06d}").exists())
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if json.loads((after / "stage.json").read_text())["status"] == "complete":
        pytest.skip("this machine stood still for so long that the stage had ended before the kill")
    published = (after / "checkpoint").exists()
    code, output = run(tmp_path, "--until", name, recipe=VARIANTS)
    assert code == 0, output
    assert (cascade.resumed(output) == steps) != published
    weights, metrics = "checkpoint/model.safetensors", "metrics.jsonl"
    assert (before / weights).read_bytes() == (after / weights).read_bytes()
    assert len((before / metrics).read_text().splitlines()) == len((after / metrics).read_text().splitlines())


def test_a_disk_that_is_full_while_saving(undisturbed, tmp_path):
    """States that cannot be written cost nothing but themselves; a checkpoint that cannot be written says so."""
    cascade.copy_fine_tuned(undisturbed, tmp_path)
    code, output = run(tmp_path, *cascade.NO_BENCHMARKS, largest_file=100_000)  # metrics fit, weights do not
    assert code == 1
    assert cascade.unsaved(output), output
    assert "Traceback" not in output
    stage = cascade.folders(tmp_path)["math-rl"]
    assert not (stage / "checkpoint").exists()
    assert not list(tmp_path.rglob("*.tmp*"))
    code, output = run(tmp_path, *cascade.NO_BENCHMARKS)
    assert code == 0, output
    assert cascade.weights(tmp_path) == cascade.weights(undisturbed)

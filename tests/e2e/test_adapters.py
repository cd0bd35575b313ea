"""Whole runs of policies that are adapters, and of a KL penalty with a model of its own as with adapters off."""

import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e import cascade
from tests.e2e.test_variants import run

pytestmark = pytest.mark.slow
RECIPE = "tests/e2e/adapters.yaml"


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    root = tmp_path_factory.mktemp("adapted")
    code, output = run(root, recipe=RECIPE)
    assert code == 0, output
    return root


def weights(root, stage):
    return load_file(cascade.folders(root, RECIPE)[stage] / "checkpoint/model.safetensors")


@pytest.mark.parametrize("stage", ["held", "merged", "adapter"])
def test_the_penalty_is_nothing_at_first_and_grows_as_the_policy_leaves(adapted, stage):
    kl = [row["loss/kl"] for row in cascade.metrics(adapted, stage, "adapters")]
    assert kl[0] == pytest.approx(0, abs=1e-9)
    assert min(kl[1:]) > 1e-5


@pytest.mark.parametrize("stage", ["merged", "adapter", "on-top"])
def test_trainer_and_engine_agree_in_every_step(adapted, stage):
    gaps = [row["sampling/logprob_gap_max"] for row in cascade.metrics(adapted, stage, "adapters")]
    measured = [
        gap for gap in gaps if gap is not None
    ]  # in a step whose groups are all flat there is nothing to measure
    assert measured
    assert max(measured) < 2e-5


def test_the_checkpoint_is_a_plain_model_whose_linear_layers_moved(adapted):
    before = weights(adapted, "sft")
    for stage in ("merged", "adapter"):
        after = weights(adapted, stage)
        assert set(after) == set(before)
        moved = {name for name in after if not torch.equal(after[name], before[name])}
        assert moved == {name for name in before if "_proj" in name}
        update = after["model.layers.0.mlp.up_proj.weight"] - before["model.layers.0.mlp.up_proj.weight"]
        assert int(torch.linalg.matrix_rank(update.double(), rtol=1e-4)) == 4
    assert {name for name, w in weights(adapted, "on-top").items() if not torch.equal(w, weights(adapted, "merged")[name])} == {
        f"model.layers.{layer}.self_attn.{part}_proj.weight" for layer in (0, 1) for part in ("q", "v")
    }  # fmt: skip


def test_the_adapter_by_itself_on_the_weights_before_is_the_checkpoint(adapted):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folders = cascade.folders(adapted, RECIPE)
    plain, base = (
        AutoModelForCausalLM.from_pretrained(folders[stage] / "checkpoint", dtype=torch.float64)
        for stage in ("merged", "sft")
    )
    loaded = PeftModel.from_pretrained(base, folders["merged"] / "adapter")
    assert loaded.peft_config["default"].base_model_name_or_path == str(folders["sft"] / "checkpoint")
    with torch.no_grad():
        ids = torch.arange(20, 60)[None]
        a, b = plain(ids).logits, loaded(ids).logits
    assert float((a - b).norm() / b.norm()) < 1e-6


def test_merged_weights_are_inherited_as_they_were_sampled_from(adapted):
    """Each stage compares trainer and engine on what it inherits; `on-top` inherits weights with adapters merged in."""
    text = (adapted / "output.txt").read_text()
    assert text.count("inherited weights") == 4
    first = cascade.metrics(adapted, "on-top", "adapters")[0]
    assert first["distill/advantage_mean"] < -1e-4


def test_killed_and_resumed_it_ends_the_same(adapted, tmp_path):
    stage = "adapter"
    shutil.copytree(adapted, tmp_path, dirs_exist_ok=True)
    folder = cascade.folders(tmp_path, RECIPE)[stage]
    shutil.rmtree(folder)
    process = cascade.start(tmp_path, "--until", stage, recipe=RECIPE)
    cascade.wait_for(lambda: (folder / "state/step-000002").exists() or (folder / "checkpoint").exists())
    state = folder / "state/step-000002"
    size = sum(path.stat().st_size for path in state.rglob("*")) if state.exists() else 0
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    whole = cascade.folders(tmp_path, RECIPE)["sft"] / "checkpoint/model.safetensors"
    assert 0 < size < whole.stat().st_size  # moments and all
    code, output = run(tmp_path, "--until", stage, recipe=RECIPE)
    assert code == 0, output
    assert cascade.resumed(output) is not None
    name = "checkpoint/model.safetensors"
    assert (folder / name).read_bytes() == (cascade.folders(adapted, RECIPE)[stage] / name).read_bytes()
    assert cascade.metrics(tmp_path, stage, "adapters") == cascade.metrics(adapted, stage, "adapters")


def test_two_ranks_learn_what_one_does(adapted, tmp_path):
    shutil.copytree(adapted, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(cascade.folders(tmp_path, RECIPE)["merged"])
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    code, output = run(tmp_path, "--until", "merged", recipe=RECIPE, launcher=two)
    assert code == 0, output
    alone, pair = (cascade.metrics(root, "merged", "adapters")[0] for root in (adapted, tmp_path))
    for key in ("loss", "grad_norm", "policy/entropy", "reward/mean", "loss/kl"):
        assert pair[key] == pytest.approx(alone[key], rel=1e-5, abs=1e-6), key

"""The published chain as one run: reward model, RLHF in both modes, gated instruction following, mixed domains."""

import json
import re

import pyarrow.parquet
import pytest

from tests.e2e import cascade
from tests.e2e.test_variants import run

pytestmark = pytest.mark.slow
CHAIN = "tests/e2e/chain.yaml"


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    root = tmp_path_factory.mktemp("chain")
    code, output = run(root, recipe=CHAIN)
    assert code == 0, output
    return root


def rollouts(root, stage, step):
    folder = cascade.folders(root, CHAIN)[stage]
    return pyarrow.parquet.read_table(folder / f"rollouts/step-{step:06d}.parquet").to_pylist()


def test_the_reward_model_is_a_side_branch(chain):
    record = json.loads((chain / "runs/chain/run.json").read_text())
    assert {stage["name"]: stage["parent"] for stage in record["stages"]} == {
        "sft": "model", "rm": "sft", "rlhf": "sft", "if": "rlhf", "mixed": "if",
    }  # fmt: skip
    folder = cascade.folders(chain, CHAIN)["rm"]
    config = json.loads((folder / "checkpoint/config.json").read_text())
    assert config["architectures"] == ["Qwen3ForSequenceClassification"]
    held_out = [json.loads(path.read_text()) for path in (folder / "evals").glob("held-out*.json")]
    assert [result["rows"] for result in held_out] == [12]


def test_half_of_every_step_thinks_and_lengths_differ_by_mode(chain):
    for step in (1, 2, 3):
        rows = rollouts(chain, "rlhf", step)
        assert sum(row["thinking"] for row in rows) == len(rows) / 2 == 8
        assert max(row["length"] for row in rows if not row["thinking"]) <= 8 < max(row["length"] for row in rows)
    step = cascade.metrics(chain, "rlhf", "chain")[0]
    assert {"thinking/reward/mean", "instruct/reward/mean", "reward/parts/rm"} <= set(step)


def test_truncated_rollouts_were_shown_to_the_reward_model(chain):
    rows = rollouts(chain, "rlhf", 1)
    cut = [row for row in rows if row["stop"] == "length"]
    assert cut
    assert all("rm" in json.loads(row["details"])["parts"] for row in cut)


def test_the_verifier_is_a_gate_and_preference_stands_behind_it(chain):
    rows = [row for step in (1, 2, 3) for row in rollouts(chain, "if", step) if row["stop"] == "eos"]
    for row in rows:
        passed = row["completion"][:1] > "M"
        assert (1 < row["value"] < 2) if passed else row["value"] == 0
    assert {row["thinking"] for row in rows} <= {False}


def test_prompts_of_rlhf_are_kept_out_of_if(chain):
    asked = {
        stage: {row["prompt"] for step in (1, 2, 3) for row in rollouts(chain, stage, step)} for stage in ("rlhf", "if")
    }
    assert not asked["rlhf"] & asked["if"]
    assert re.search(r"exclude stage rlhf: \d+ of \d+", (chain / "output.txt").read_text())


def test_domains_have_their_shares_and_their_rewards(chain):
    for step in (1, 2, 3):
        rows = rollouts(chain, "mixed", step)
        sums = [row for row in rows if "+" in row["prompt"]]
        assert (len(sums), len(rows)) == (4, 16)  # one prompt of four, by weight
    step = cascade.metrics(chain, "mixed", "chain")[0]
    assert {"domain/words/reward/mean", "domain/sums/reward/mean"} <= set(step)


def test_a_benchmark_in_either_mode(chain):
    samples = {
        mode: (next(cascade.folders(chain, CHAIN)["rlhf"].glob(f"evals/words-{mode}-*.samples.jsonl"))).read_text()
        for mode in ("thinking", "instruct")
    }
    assert samples["thinking"] != samples["instruct"]


def test_killed_in_rlhf_and_resumed_it_ends_the_same(chain, tmp_path):
    import os
    import shutil
    import signal

    shutil.copytree(chain, tmp_path, dirs_exist_ok=True)
    for name in ("rlhf", "if", "mixed"):
        shutil.rmtree(cascade.folders(tmp_path, CHAIN)[name])
    process = cascade.start(tmp_path, "--until", "rlhf", recipe=CHAIN)
    folder = cascade.folders(tmp_path, CHAIN)["rlhf"]
    cascade.wait_for(lambda: (folder / "state/step-000002").exists() or (folder / "checkpoint").exists())
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    code, output = run(tmp_path, "--until", "rlhf", recipe=CHAIN)
    assert code == 0, output
    weights = "checkpoint/model.safetensors"
    assert (folder / weights).read_bytes() == (cascade.folders(chain, CHAIN)["rlhf"] / weights).read_bytes()

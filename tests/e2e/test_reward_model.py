"""A reward model from pairs to a served checkpoint: it learns, resumes bit for bit, and scores alike everywhere."""

import functools
import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from tests.e2e import cascade
from tests.training.sharded import distance

pytestmark = pytest.mark.slow
RECIPE = "tests/e2e/liking.yaml"
CONVERSATIONS = [
    [{"role": "user", "content": "What is the sum? 7"}, {"role": "assistant", "content": "\\boxed{8}"}],
    [{"role": "user", "content": "What is the sum? 7"}, {"role": "assistant", "content": "\\boxed{1}\n"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "\\boxed{2}"},
        {"role": "user", "content": "and a word that is much longer than the others are"},
        {"role": "assistant", "content": "No <|im_end|> at all."},
    ],
]


def stage(root):
    (folder,) = root.glob("store/reward-model-*")
    return folder


def run(root, *arguments, launcher=()):
    process = cascade.start(root, *arguments, recipe=RECIPE, launcher=launcher)
    output = cascade.finish(process, root)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    run(root)
    return root


def test_it_learns_the_rule_and_measures_itself(trained):
    held_out = json.loads((stage(trained) / "evals/held-out.json").read_text())
    assert (held_out["rows"], held_out["samples"]) == (60, 1)
    assert held_out["value"] > 0.9
    assert set(held_out["categories"]) == {"near", "far"}
    assert sum(each["rows"] for each in held_out["categories"].values()) == 60
    assert sum(held_out["margins"]["counts"]) == 60
    others = json.loads((stage(trained) / "evals/others.json").read_text())
    assert others["value"] == pytest.approx(sum(s["value"] for s in others["sections"].values()) / 2)
    rows = cascade.metrics(trained, "reward-model", run="liking")
    assert [row["step"] for row in rows] == list(range(1, 41))
    for key in ("loss", "accuracy", "margin", "learning_rate", "grad_norm", "tokens/trained"):
        assert key in rows[0], key
    page = (trained / "runs/liking/report/index.html").read_text()
    assert "held-out" in page
    assert "others" in page


def test_what_is_measured_may_change_without_training_again(trained):
    weights = (stage(trained) / "checkpoint/model.safetensors").stat().st_mtime_ns
    output = run(trained, "--set", "stages.reward-model.evaluate.0.name=renamed")
    assert "(reward_model," not in output.rsplit("[1/1]", 1)[1]
    assert (stage(trained) / "evals/renamed.json").is_file()
    assert (stage(trained) / "checkpoint/model.safetensors").stat().st_mtime_ns == weights


SCORES = """\
import json, sys
from pathlib import Path
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, conversations = sys.argv[1], json.loads(sys.argv[2])
model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(folder)
from cascade_rl.rewarding.reward_model_ids import judged_ids
ids = [judged_ids(tokenizer, c) for c in conversations]
plain = tokenizer.encode(
    tokenizer.apply_chat_template(conversations[0], tokenize=False).rstrip(), add_special_tokens=False
)
assert plain == ids[0] and all(row[-1] == tokenizer.eos_token_id for row in ids)
padded = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
with torch.no_grad():
    together = model(**padded).logits.squeeze(-1).tolist()
    alone = [model(input_ids=torch.tensor([row])).logits.item() for row in ids]
from cascade_rl.rollout.vllm_engine import prepare_environment
prepare_environment(cpu=True, kv_cache_gib=1)
from vllm import LLM
from vllm.config import PoolerConfig
llm = LLM(model=folder, runner="pooling", dtype="float32", max_model_len=256, enforce_eager=True,
          pooler_config=PoolerConfig(use_activation=False))
served = [o.outputs.probs[0] for o in llm.classify([{"prompt_token_ids": row} for row in ids], use_tqdm=False)]
labels = model.config.num_labels
Path(sys.argv[3]).write_text(json.dumps({"together": together, "alone": alone, "served": served, "labels": labels}))
import os
os._exit(0)  # vLLM's threads linger
"""


def test_transformers_and_vllm_give_the_same_scores(trained, tmp_path):
    out = tmp_path / "scores.json"
    checkpoint = stage(trained) / "checkpoint"
    done = subprocess.run(
        [sys.executable, "-c", SCORES, str(checkpoint), json.dumps(CONVERSATIONS), str(out)],
        cwd=cascade.REPOSITORY, env={**cascade.environment(), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert out.is_file(), done.stderr[-3000:]
    found = json.loads(out.read_text())
    print(found)
    assert found["labels"] == 1
    assert found["alone"][0] > found["alone"][1]
    assert found["together"] == pytest.approx(found["alone"], abs=1e-5)
    assert found["served"] == pytest.approx(found["alone"], abs=1e-5)
    assert json.loads((checkpoint / "cascade_rl.json").read_text())["kind"] == "reward_model"


def weights(root):
    return hashlib.sha256((stage(root) / "checkpoint/model.safetensors").read_bytes()).hexdigest()


def test_killed_and_resumed_it_ends_in_the_same_weights(trained, tmp_path):
    for number, signal_number in enumerate((signal.SIGKILL, signal.SIGTERM)):
        process = cascade.start(tmp_path, recipe=RECIPE)
        least = 5 * (number + 1)
        cascade.wait_for(
            lambda p=process, n=least: (
                p.poll() is not None
                or any(int(f.name[5:]) >= n for f in tmp_path.glob("store/reward-model-*/state/step-*"))
            )
        )
        if process.poll() is None:
            if signal_number == signal.SIGKILL:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.send_signal(signal.SIGTERM)
        process.wait(120)
    assert cascade.resumed(run(tmp_path)) is not None
    assert weights(tmp_path) == weights(trained)
    assert cascade.metrics(tmp_path, "reward-model", "liking") == cascade.metrics(trained, "reward-model", "liking")


SHORT = (
    "--set", "stages.reward-model.steps=4", "--set", "stages.reward-model.lr_horizon_steps=40",
    "--set", "stages.reward-model.centering=0.02", "--set", "stages.reward-model.save_every=1",
)  # fmt: skip


def on_two_ranks(kind):
    return "-m", "accelerate.commands.launch", "--config_file", f"launch/accelerate/cpu-2{kind}.yaml"


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """(launch configuration, further arguments) -> folder of a whole run of four steps."""

    @functools.cache
    def run_once(kind=None, *arguments):
        root = tmp_path_factory.mktemp(f"short{kind}")
        run(root, *SHORT, *arguments, launcher=() if kind is None else on_two_ranks(kind))
        return root

    return run_once


def assert_alike(one, other, tolerance):
    """Steps, weights and held-out pairs of two runs of four steps."""
    rows = [cascade.metrics(root, "reward-model", "liking") for root in (one, other)]
    assert len(rows[0]) == 4
    for ours, theirs in zip(*rows, strict=True):
        for key in ("loss", "margin", "score/mean", "grad_norm", "accuracy", "learning_rate", "epoch"):
            assert theirs[key] == pytest.approx(ours[key], rel=tolerance, abs=tolerance), key
        assert theirs["tokens/trained"] == ours["tokens/trained"]
    checkpoints = [load_file(stage(root) / "checkpoint/model.safetensors") for root in (one, other)]
    assert distance(*checkpoints) < tolerance / 10
    results = [json.loads((stage(root) / "evals/held-out.json").read_text()) for root in (one, other)]
    assert results[1]["margin"] == pytest.approx(results[0]["margin"], rel=10 * tolerance)


@pytest.mark.parametrize("kind", ["-zero3", "-fsdp2"])
def test_two_ranks_train_and_measure_as_one(short, kind):
    """Held-out pairs are measured by the model as it was trained, benchmarks by the stored checkpoint."""
    assert_alike(short(), short(kind), 1e-4)
    values = [json.loads((stage(root) / "evals/others.json").read_text()) for root in (short(), short(kind))]
    assert values[1]["margin"] == pytest.approx(values[0]["margin"], rel=1e-3)


@pytest.mark.parametrize("kind", [None, ""])
def test_trls_trainer_makes_the_same_steps(short, kind):
    """On one rank and on two, on the same pairs in the same order."""
    by_trl = ("--set", "stages.reward-model.trainer=trl", "--set", "stages.reward-model.micro_batch_size=4")
    assert_alike(short(), short(kind, *by_trl), 2e-4)


def test_a_sharded_stage_killed_and_resumed_ends_in_the_same_weights(short, tmp_path):
    process = cascade.start(tmp_path, *SHORT, recipe=RECIPE, launcher=on_two_ranks("-zero3"))
    cascade.wait_for(lambda: process.poll() is not None or bool(list(tmp_path.glob("store/reward-*/state/step-*"))))
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(120)
    run(tmp_path, *SHORT, launcher=on_two_ranks("-zero3"))
    assert weights(tmp_path) == weights(short("-zero3"))


def test_a_reward_model_can_go_on_from_another(trained, tmp_path):
    checkpoint = stage(trained) / "checkpoint"
    run(
        tmp_path, "--set", f"stages.reward-model.init={checkpoint}", "--set", "stages.reward-model.steps=1",
        "--set", "stages.reward-model.learning_rate=1e-9", "--set", "stages.reward-model.template={}",
    )  # fmt: skip
    (row,) = cascade.metrics(tmp_path, "reward-model", "liking")
    assert row["accuracy"] > 0.9

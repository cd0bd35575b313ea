"""Whole runs with real vLLM: what a run leaves, what resuming gives, what killing does not change."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.e2e import cascade

pytestmark = pytest.mark.slow


def cli(root, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "cascade_rl", *arguments, "--root", str(root)],
        cwd=cascade.REPOSITORY, env=cascade.environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_what_a_run_leaves(undisturbed):
    status = json.loads(cli(undisturbed, "status", "tiny", "--json").stdout)
    assert status["run"] == "tiny"
    assert [(s["name"], s["kind"], s["status"], s["parent"]) for s in status["stages"]] == [
        ("sft-1", "sft", "complete", "model"),
        ("sft-2", "sft", "complete", "sft-1"),
        ("math-rl", "rl", "complete", "sft-2"),
    ]
    for stage in status["stages"]:
        folder = undisturbed / stage["directory"]
        assert {"checkpoint", "metrics.jsonl", "stage.json", "evals", "logs"} <= {p.name for p in folder.iterdir()}
        names = {p.name for p in (folder / "checkpoint").iterdir()}
        assert {
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "chat_template.jinja",
            "generation_config.json",
        } <= names
        assert 0 <= stage["evaluations"]["sums"] <= 1
        assert not (folder / "state").exists()
    page = (undisturbed / "runs/tiny/report/index.html").read_text()
    assert "math-rl" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert [row["step"] for row in cascade.metrics(undisturbed, "math-rl")] == list(range(1, 9))


def test_trainer_and_engine_agreed_in_every_step(undisturbed):
    for row in cascade.metrics(undisturbed, "math-rl"):
        assert row["sampling/logprob_gap_max"] < 2e-5, row


def test_the_checkpoint_is_a_plain_model(undisturbed):
    """It loads in transformers alone, template and EOS included, and its head is tied as in the base."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    status = json.loads(cli(undisturbed, "status", "tiny", "--json").stdout)
    folder = undisturbed / status["stages"][-1]["directory"] / "checkpoint"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token == "<|im_end|>"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.tie_word_embeddings
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+2"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert torch.isfinite(model(**ids).logits).all()


def test_a_second_start_says_that_all_is_done(own):
    before = cascade.weights(own)
    result = cli(own, "run", cascade.RECIPE)
    assert result.returncode == 0, result.stderr
    assert "[1/3]" not in result.stdout
    assert cascade.weights(own) == before


def test_the_same_recipe_and_seed_give_the_same_run_again(undisturbed, tmp_path):
    """Elsewhere on the disk, bit for bit: weights, metrics but for the clock's, and what benchmarks measured."""
    process = cascade.start(tmp_path)
    output = cascade.finish(process, tmp_path)
    assert process.returncode == 0, output
    assert cascade.weights(tmp_path) == cascade.weights(undisturbed)
    for stage in ("sft-1", "sft-2", "math-rl"):
        assert cascade.metrics(tmp_path, stage) == cascade.metrics(undisturbed, stage)
    first, second = (json.loads(cli(root, "status", "tiny", "--json").stdout) for root in (undisturbed, tmp_path))
    assert [stage["evaluations"] for stage in second["stages"]] == [stage["evaluations"] for stage in first["stages"]]


def _strike(victim, process, ranks):
    """Kill or stop the rank, the orchestrator or the whole group of a run, and wait until all of it is gone."""
    if victim == "group":
        os.killpg(process.pid, signal.SIGKILL)
    elif victim == "rank":
        os.kill(ranks[0], signal.SIGKILL)
    elif victim == "orchestrator":
        os.kill(process.pid, signal.SIGKILL)
    else:
        process.send_signal(signal.SIGTERM)
    code = process.wait(120)
    if victim in ("rank", "sigterm"):
        assert code == {"rank": 1, "sigterm": 75}[victim]
    cascade.wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in ranks), 30)


def test_killed_at_random_instants_it_ends_in_the_same_weights(undisturbed, tmp_path):
    """Orchestrator, rank, or whole group; SIGKILL, and SIGTERM between; once with a damaged newest state.

    A fast machine may end the run before it was struck so often: the strikes go on in another folder.
    """
    rng = random.Random(os.environ.get("CASCADE_RL_KILL_SEED", "kills"))
    victims = ["group", "rank", "orchestrator", "sigterm", "rank", "group"]
    roots = [tmp_path / "0"]
    damaged, starts = False, 0
    while victims:
        starts += 1
        assert starts <= 40, f"{victims} were not struck"
        process = cascade.start(roots[-1])
        cascade.wait_for(lambda p=process: cascade.children(p.pid) or p.poll() is not None)
        end = time.monotonic() + rng.uniform(0.1, 2.5)
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.02)
        ranks = cascade.children(process.pid)
        if process.poll() is not None:
            assert process.returncode == 0, (roots[-1] / "output.txt").read_text()
            roots.append(tmp_path / str(len(roots)))
            continue
        if not ranks:  # between two stages
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            continue
        _strike(victims.pop(0), process, ranks)
        states = sorted(roots[-1].glob("store/math-rl-*/state/step-*"))
        if len(states) == 2 and not damaged:
            file = states[-1] / "state.pt"
            file.write_bytes(file.read_bytes()[:-100])
            damaged = True
    process = cascade.start(roots[-1])
    output = cascade.finish(process, roots[-1])
    assert process.returncode == 0, output
    assert "ended by SIGKILL" in "".join((root / "output.txt").read_text() for root in roots)
    for root in roots:
        assert cascade.weights(root) == cascade.weights(undisturbed)
        for stage in ("sft-1", "sft-2", "math-rl"):
            assert cascade.metrics(root, stage) == cascade.metrics(undisturbed, stage)


def test_a_second_run_of_the_same_recipe_is_told_who_holds_it(tmp_path):
    process = cascade.start(tmp_path)
    try:
        cascade.wait_for(lambda: cascade.children(process.pid))
        second = cli(tmp_path, "run", cascade.RECIPE)
        assert second.returncode == 1
        assert f"process {process.pid}" in second.stderr
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_another_recipe_shares_the_stages_it_does_not_change(own):
    result = cli(own, "run", cascade.RECIPE, "--set", "name=other", "--set", "stages.math-rl.steps=1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "sft-1" not in result.stdout.split("accuracy")[0]
    assert "[3/3] math-rl" in result.stdout
    stages = {run: json.loads((own / f"runs/{run}/run.json").read_text())["stages"] for run in ("tiny", "other")}
    same = [a["identity"] == b["identity"] for a, b in zip(stages["tiny"], stages["other"], strict=True)]
    assert same == [True, True, False]


def test_from_computes_only_that_stage_and_comes_out_the_same(own):
    before = cascade.weights(own)
    result = cli(own, "run", cascade.RECIPE, "--from", "math-rl")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "[1/3]" not in result.stdout
    assert "[3/3] math-rl" in result.stdout
    assert cascade.weights(own) == before
    assert not list(own.glob("store/*.superseded"))


def test_a_changed_finished_stage_stops_the_run_with_the_change_shown(own):
    result = cli(own, "run", cascade.RECIPE, "--set", "stages.sft-2.learning_rate=0.001")
    assert result.returncode == 1
    assert ": sft-2, math-rl" in result.stderr
    assert "sft-2: config.learning_rate: 0.003 -> 0.001" in result.stderr
    assert "--branch NAME" in result.stderr
    assert "accuracy" not in result.stdout, "nothing ran: the error stands alone"


TWO_RANKS = ("-m", "accelerate.commands.launch", "--config_file", "launch/accelerate/cpu-2.yaml")


def test_two_ranks_with_an_engine_each(undisturbed, tmp_path):
    """From the same checkpoint, two ranks draw the same rollouts as one and make the same update."""
    cascade.copy_fine_tuned(undisturbed, tmp_path)
    process = cascade.start(tmp_path, *cascade.NO_BENCHMARKS, launcher=TWO_RANKS)
    output = cascade.finish(process, tmp_path)
    assert process.returncode == 0, output
    alone, pair = cascade.metrics(undisturbed, "math-rl")[0], cascade.metrics(tmp_path, "math-rl")[0]
    for key in ("reward/mean", "tokens/trained", "tokens/rollout", "completions/truncated", "groups/zero_variance"):
        assert pair[key] == pytest.approx(alone[key], abs=1e-12), key
    for key in ("loss", "grad_norm", "policy/entropy"):
        assert pair[key] == pytest.approx(alone[key], rel=1e-5, abs=1e-6), key
    assert len(cascade.metrics(tmp_path, "math-rl")) == 8
    (record,) = tmp_path.glob("store/math-rl-*/stage.json")
    assert json.loads(record.read_text())["attempts"][-1]["world_size"] == 2


def test_two_ranks_fine_tune_as_one(undisturbed, tmp_path):
    process = cascade.start(tmp_path, "--until", "sft-1", *cascade.NO_BENCHMARKS, launcher=TWO_RANKS)
    output = cascade.finish(process, tmp_path)
    assert process.returncode == 0, output
    for a, b in zip(cascade.metrics(undisturbed, "sft-1"), cascade.metrics(tmp_path, "sft-1"), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
        assert (b["tokens/trained"], b["tokens/padding"]) == (a["tokens/trained"], 0)


def test_a_failing_rank_ends_both_with_one_message(tmp_path):
    process = cascade.start(
        tmp_path,
        "--set", "stages.sft-1.steps=1", "--until", "math-rl", "--set", "stages.sft-2.steps=1",
        "--set", "stages.math-rl.reward.use=tests.e2e.faulty:raises_on_rank_one",
        "--set", "stages.math-rl.overlong=score", *cascade.NO_BENCHMARKS,
        launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    )  # fmt: skip
    output = cascade.finish(process, tmp_path)
    assert process.returncode != 0
    assert output.count("stage math-rl failed") == 1
    assert re.search("8 of 16 .*max_error_rate 0.05", output)
    assert "KeyError: 'no such thing'" in output


@pytest.mark.parametrize("fault", ["hangs", "dies"])
def test_rewards_that_hang_or_die_cost_their_rollouts_not_the_run(own, fault):
    result = cli(
        own, "run", cascade.RECIPE, "--set", f"name={fault}",
        "--set", f"stages.math-rl.reward.use=tests.e2e.faulty:{fault}", "--set", "stages.math-rl.reward.blocked_s=0.3",
        "--set", "stages.math-rl.reward.failure=-1", "--set", "stages.math-rl.steps=1",
        *cascade.NO_BENCHMARKS,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    (row,) = cascade.metrics(own, "math-rl", run=fault)
    assert row["reward/timeouts"] > 0
    assert row["reward/error_rate"] == 0
    assert row["reward/mean"] < 1

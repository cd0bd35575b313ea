"""An RL stage whose rollouts come from a real vLLM server, and which learns while that still generates."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.e2e import cascade

pytestmark = pytest.mark.slow
DEDICATED = (
    "--set", "stages.math-rl.engine.placement=dedicated", "--set", "stages.math-rl.tokens_per_micro_batch=256",
    *cascade.NO_BENCHMARKS,
)  # fmt: skip


@pytest.fixture(scope="module")
def dedicated(undisturbed, tmp_path_factory):
    root = tmp_path_factory.mktemp("dedicated")
    cascade.copy_fine_tuned(undisturbed, root)
    process = cascade.start(root, *DEDICATED)
    output = cascade.finish(process, root)
    assert process.returncode == 0, output
    return root


def servers(root) -> list[int]:
    """The vLLM servers of the run under ``root``: each leads a session of its own, in which its engine lives too."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue
            serves = command.split(b"\0")[1:3] == [b"-m", b"vllm.entrypoints.openai.api_server"]  # and is not its guard
            if serves and f"CASCADE_TEST_ROOT={root}\0".encode() in environment:
                found.append(int(entry.name))
    return found


def alive(sessions) -> list[int]:
    """Processes of these sessions (an engine renames itself, and its environment is gone)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, *fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[2]) in sessions and state != "Z":
                found.append(int(entry.name))
    return found


def test_its_first_step_is_that_of_an_engine_in_the_rank(undisturbed, dedicated):
    """The same rollouts, and the same update but for the order in which floats are summed."""
    ours, theirs = cascade.metrics(dedicated, "math-rl"), cascade.metrics(undisturbed, "math-rl")
    assert len(ours) == len(theirs) == 8
    for key in ("reward/mean", "tokens/trained", "tokens/rollout", "completions/truncated", "groups/zero_variance"):
        assert ours[0][key] == pytest.approx(theirs[0][key], abs=1e-12), key
    for key in ("loss", "grad_norm", "policy/entropy"):
        assert ours[0][key] == pytest.approx(theirs[0][key], rel=1e-5, abs=1e-6), key
    for row in ours:
        assert row["sampling/logprob_gap_max"] < 2e-5, row


def launched(kind: str) -> tuple[str, ...]:
    return ("-m", "accelerate.commands.launch", "--config_file", f"launch/accelerate/{kind}.yaml")


@pytest.mark.parametrize("launcher", [(), launched("cpu-2-fsdp2")], ids=["alone", "fsdp2"])
def test_it_trains_while_others_are_generated(undisturbed, tmp_path, launcher):
    """Rollouts of very uneven lengths, rows of a few of them. Ranks that share weights do so in step."""
    cascade.copy_fine_tuned(undisturbed, tmp_path)
    process = cascade.start(
        tmp_path, *DEDICATED, "--set", "stages.math-rl.rollout.max_new_tokens=150", "--set", "stages.math-rl.steps=2",
        "--set", "stages.math-rl.tokens_per_micro_batch=64", "--set", "stages.math-rl.prompts_per_step=8",
        "--set", "stages.math-rl.engine.max_num_seqs=8",  # some groups are whole before others begin
        "--set", "name=uneven", launcher=launcher,
    )  # fmt: skip
    output = cascade.finish(process, tmp_path)
    assert process.returncode == 0, output
    (trace,) = tmp_path.glob("store/math-rl-*/trace.jsonl")
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    assert {line["rank"] for line in lines} == ({0, 1} if launcher else {0})
    overlapping = 0
    for step in {line["step"] for line in lines}:
        spans = [span for line in lines if line["step"] == step for span in line["spans"]]  # of any rank
        generate = [span for span in spans if span[0] == "generate"]
        overlapping += sum(
            any(start < g_end and g_start < end for _, g_start, g_end in generate)
            for lane, start, end in spans
            if lane == "train"
        )
    assert overlapping > 0


def test_sharded_ranks_that_learn_while_they_generate_learn_the_same(undisturbed, tmp_path):
    """As one rank with an engine of its own, in the first step; and the same bits again after a kill."""
    roots = [tmp_path / "whole", tmp_path / "killed"]
    wishes = (*DEDICATED, "--set", "stages.math-rl.tokens_per_micro_batch=64",
              "--set", "stages.math-rl.steps=4")  # fmt: skip
    for root in roots:
        cascade.copy_fine_tuned(undisturbed, root)
        process = cascade.start(root, *wishes, launcher=launched("cpu-2-fsdp2"))
        if root is roots[1]:
            cascade.kill_at_state(process, root, 2)
            process = cascade.start(root, *wishes, launcher=launched("cpu-2-fsdp2"))
        output = cascade.finish(process, root)
        assert process.returncode == 0, output
    first, plain = (cascade.metrics(root, "math-rl")[0] for root in (roots[0], undisturbed))
    for key in ("loss", "grad_norm", "policy/entropy"):
        assert first[key] == pytest.approx(plain[key], rel=1e-5, abs=1e-6), key
    for key in ("reward/mean", "tokens/trained", "completions/truncated", "groups/zero_variance"):
        assert first[key] == pytest.approx(plain[key], abs=1e-12), key
    assert cascade.weights(roots[0]) == cascade.weights(roots[1])


def test_a_server_that_is_killed_ends_the_attempt_and_the_next_one_goes_on(undisturbed, dedicated, tmp_path):
    cascade.copy_fine_tuned(undisturbed, tmp_path)
    process = cascade.start(tmp_path, *DEDICATED)
    cascade.wait_for(lambda: list(tmp_path.glob("store/math-rl-*/state/step-000002")))
    struck = servers(tmp_path)
    assert len(alive(struck)) > 1
    for pid in struck:  # the server alone: what it started must go with it
        os.kill(pid, signal.SIGKILL)
    output = cascade.finish(process, tmp_path)
    assert process.returncode == 1, output
    assert "Traceback" not in output
    assert "server" in output
    cascade.wait_for(lambda: not alive(struck), 60)
    process = cascade.start(tmp_path, *DEDICATED)
    cascade.wait_for(lambda: len(alive(servers(tmp_path))) > 1)
    begun_again = servers(tmp_path)
    output = cascade.finish(process, tmp_path)
    assert process.returncode == 0, output
    assert cascade.resumed(output) is not None
    cascade.wait_for(lambda: not alive(begun_again), 60)  # nor does anything outlive a run that ends well
    assert cascade.weights(tmp_path) == cascade.weights(dedicated)

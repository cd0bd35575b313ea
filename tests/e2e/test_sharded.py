"""The RL stage under each kind of sharding: two processes, an engine in each, gathered weights streamed into both."""

import functools
import re

import pytest

from tests.e2e import cascade

pytestmark = pytest.mark.slow
STEPS = 4


def start(root, strategy):
    """The stage on the SFT results already in ``root``."""
    launcher = (
        "-m", "accelerate.commands.launch", "--config_file", f"launch/accelerate/cpu-2-{strategy}.yaml",
    )  # fmt: skip
    wishes = ("--set", f"stages.math-rl.steps={STEPS}", *cascade.NO_BENCHMARKS)
    return cascade.start(root, *wishes, launcher=launcher)


def kill_after_two_steps(root, strategy):
    process = start(root, strategy)
    cascade.kill_at_state(process, root, 2)


@pytest.fixture(scope="module")
def sharded(undisturbed, tmp_path_factory):
    """strategy -> folder of a whole run under it."""

    @functools.cache
    def run(strategy):
        root = cascade.copy_fine_tuned(undisturbed, tmp_path_factory.mktemp(strategy))
        process = start(root, strategy)
        output = cascade.finish(process, root)
        assert process.returncode == 0, output
        return root

    return run


@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp2"])
def test_the_stage_learns_as_a_replicated_one_does(undisturbed, sharded, strategy):
    plain = cascade.metrics(undisturbed, "math-rl")[0]
    rows = cascade.metrics(sharded(strategy), "math-rl")
    assert len(rows) == STEPS
    for key in ("reward/mean", "tokens/trained", "tokens/rollout", "completions/truncated", "groups/zero_variance"):
        assert rows[0][key] == pytest.approx(plain[key], abs=1e-12), key
    for key in ("loss", "grad_norm", "policy/entropy"):
        assert rows[0][key] == pytest.approx(plain[key], rel=1e-5, abs=1e-6), key
    for row in rows:  # each rank's engine got the gathered weights, whole
        assert row["sampling/logprob_gap_max"] < 2e-5, row


def test_killed_and_resumed_it_ends_in_the_same_weights(undisturbed, sharded, tmp_path):
    root = cascade.copy_fine_tuned(undisturbed, tmp_path)
    kill_after_two_steps(root, "fsdp2")
    process = start(root, "fsdp2")
    output = cascade.finish(process, root)
    assert process.returncode == 0, output
    assert cascade.resumed(output) == 2
    assert cascade.weights(root)["math-rl"] == cascade.weights(sharded("fsdp2"))["math-rl"]


def test_a_state_goes_on_under_another_strategy(undisturbed, tmp_path):
    """Weights and moments lie by parameter name: begun under FSDP2 on two ranks, ended by one process alone."""
    root = cascade.copy_fine_tuned(undisturbed, tmp_path)
    kill_after_two_steps(root, "fsdp2")
    wishes = ("--set", f"stages.math-rl.steps={STEPS}", *cascade.NO_BENCHMARKS)
    process = cascade.start(root, *wishes)
    output = cascade.finish(process, root)
    assert process.returncode == 0, output
    assert re.search("resumed .*1 ranks .* 2 ", output)
    assert len(cascade.metrics(root, "math-rl")) == STEPS


def test_a_recipe_that_asks_for_another_strategy_than_the_launcher_is_refused(tmp_path):
    launcher = ("-m", "accelerate.commands.launch", "--config_file", "launch/accelerate/cpu-2-zero3.yaml")
    process = cascade.start(tmp_path, "--set", "stages.math-rl.sharding={strategy: fsdp2}", launcher=launcher)
    output = cascade.finish(process, tmp_path)
    assert process.returncode != 0
    assert re.search("fsdp2.* zero3", output)

"""Every strategy makes the update that a replicated policy makes; states go from any of them to any other."""

import pytest
import torch

from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import ShardingConfig
from cascade_rl.recipe.launching import Launch
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.sharding.gradients import buckets, clip_factor
from cascade_rl.training.startup import check_running
from cascade_rl.types import CascadeError
from tests.training import sharded
from tests.training.sharded import launch, policy_of, train

ALONE = Ranks(0, 1, torch.device("cpu"))
SHARDED = ("zero2", "zero3", "fsdp2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    tiny_qwen3.build(folder / "model", seed=3, hidden_size=64, layers=2, intermediate_size=96)
    return folder


def test_buckets_keep_order_and_size():
    tensors = [torch.zeros(n) for n in (3, 3, 3, 9, 1)]  # float32: 12, 12, 12, 36, 4 bytes
    assert [[t.numel() for t in group] for group in buckets(tensors, 24)] == [[3, 3], [3], [9], [1]]
    assert list(buckets([], 24)) == []


def test_the_clip_is_torchs_own():
    for norm in (0.2, 5.0):
        gradient = torch.tensor([norm, 0.0])
        parameter = torch.nn.Parameter(torch.zeros(2))
        parameter.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([parameter], 0.5)
        assert torch.allclose(parameter.grad, gradient * clip_factor(norm, 0.5))


def test_an_optimizer_on_the_cpu_makes_the_same_steps(folder):
    """On a CPU the copy is one all the same: weights must be carried over after each step and after loading."""
    plain = policy_of(folder, ALONE, strategy="ddp")
    apart = policy_of(folder, ALONE, strategy="ddp", offload_optimizer=True)
    for ours, theirs in zip(train(apart, 3), train(plain, 3), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
    assert sharded.distance(sharded.weights(plain), sharded.weights(apart)) < 1e-7


def test_an_offloaded_state_is_loaded_into_both_copies(folder, tmp_path):
    first = policy_of(folder, ALONE, strategy="ddp", offload_optimizer=True)
    train(first, 2)
    first.save(tmp_path)
    second = policy_of(folder, ALONE, strategy="ddp", offload_optimizer=True)
    second.load(tmp_path)
    assert sharded.distance(sharded.weights(first), sharded.weights(second)) == 0.0
    assert train(first, 1, 2) == train(second, 1, 2)


def test_a_state_of_another_model_is_refused(folder, tmp_path):
    tiny_qwen3.build(tmp_path / "model", seed=3, hidden_size=64, layers=1, intermediate_size=96)
    policy_of(tmp_path, ALONE, strategy="ddp").save(tmp_path)
    with pytest.raises(CascadeError, match=r"model\.layers\.1\."):
        policy_of(folder, ALONE, strategy="ddp").load(tmp_path)


def test_a_state_with_a_missing_file_is_refused(folder, tmp_path):
    """As when one host's shards did not arrive."""
    policy = policy_of(folder, ALONE, strategy="ddp")
    policy.save(tmp_path)
    (file,) = tmp_path.glob("policy-*.pt")
    kept = torch.load(file)
    for entry in kept.values():
        entry["weight"] = entry["weight"][: len(entry["weight"]) // 2].clone()
    torch.save(kept, file)
    with pytest.raises(CascadeError, match="missing"):
        policy_of(folder, ALONE, strategy="ddp").load(tmp_path)
    file.unlink()
    with pytest.raises(CascadeError, match="no state"):
        policy_of(folder, ALONE, strategy="ddp").load(tmp_path)


DDP = ShardingConfig(strategy="ddp")


@pytest.mark.parametrize(
    ("launched", "how", "message"),
    [
        (Launch(processes=2), DDP, "2 .*, 1 "),
        (Launch(), ShardingConfig(strategy="zero3"), "zero3 .*, ddp "),
        (Launch(strategy="fsdp2"), DDP, "fsdp2 .*accelerate.*, ddp "),
        (Launch(), ShardingConfig(strategy="zero2"), "zero2 .*recipe"),
    ],
)
def test_a_start_that_is_not_what_was_asked_for_is_refused(folder, launched, how, message):
    policy = policy_of(folder, ALONE, strategy="ddp")
    check_running(policy, Launch(processes=1), DDP)
    with pytest.raises(CascadeError, match=message):
        check_running(policy, launched, how)


def test_ranks_that_torch_does_not_know_are_refused(folder, monkeypatch):
    """What accelerate does on CPU: one process by its own account, two in torch.distributed."""
    import torch.distributed as dist

    policy = policy_of(folder, ALONE, strategy="ddp")
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    with pytest.raises(CascadeError, match=r"1 .*, 2 .*torch\.distributed"):
        check_running(policy, Launch(), DDP)


def test_weights_that_no_rank_keeps_are_noticed(folder, monkeypatch):
    policy = policy_of(folder, ALONE, strategy="ddp")
    kept = list(policy.sharding.pieces())[1:]
    monkeypatch.setattr(policy.sharding, "pieces", lambda: kept)
    with pytest.raises(CascadeError, match="weights"):
        check_running(policy, Launch(), DDP)


@pytest.fixture(scope="module")
def compared(folder):
    """strategy and further keys -> what ``sharded.against_ddp`` finds on two ranks."""
    found = {}

    def compare(strategy, dtype="float32", checkpointing=False, **how):
        key = (strategy, dtype, checkpointing, str(how))
        if key not in found:
            found[key] = launch(
                "against_ddp", folder, 2, how={"strategy": strategy, **how}, dtype=dtype, checkpointing=checkpointing
            )
        return found[key]

    return compare


@pytest.mark.slow
@pytest.mark.parametrize("strategy", SHARDED)
def test_three_steps_end_in_the_weights_of_a_replicated_policy(compared, strategy):
    found = compared(strategy)
    assert found["marks"] == [strategy, "cpu"]
    assert found["lockstep"]
    assert found["start"] == 0.0
    assert found["score_gap"] < 1e-6
    for (loss, norm), (own_loss, own_norm) in zip(found["ddp"], found["own"], strict=True):
        assert own_loss == pytest.approx(loss, rel=2e-6)
        assert own_norm == pytest.approx(norm, rel=2e-6)
    assert found["weights"] < 1e-7
    assert found["checkpoint"] < 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("strategy", SHARDED)
def test_a_gradient_that_is_not_finite_moves_nothing_on_any_rank(compared, strategy):
    """Nor does a step without gradient, nor a gradient that was discarded."""
    found = compared(strategy)
    assert found["nonfinite"] == [True, True]
    assert found["nothing"] == 0.0
    assert found["kept"] == 0.0
    assert found["after"] < 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("strategy", SHARDED)
def test_half_precision_and_recomputed_layers_agree_too(compared, strategy):
    """bfloat16 by autocast in all of them. FSDP2 gathers norms in bfloat16 too, so it sees them as the engine does: of
    a norm that moved from 1 to 1.001 nothing, which is what its bars are about."""
    found = compared(strategy, dtype="bfloat16", checkpointing=True)
    bar, loose = (1e-3, 5e-3) if strategy == "fsdp2" else (1e-5, 1e-4)
    assert found["checkpoint"] < bar
    for (loss, norm), (own_loss, own_norm) in zip(found["ddp"], found["own"], strict=True):
        assert own_loss == pytest.approx(loss, rel=loose)
        assert own_norm == pytest.approx(norm, rel=loose)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", SHARDED)
def test_offloading_changes_nothing_but_the_place(compared, strategy):
    options = {"offload_optimizer": True, "offload_parameters": strategy != "zero2"}
    found = compared(strategy, **options)
    assert found["marks"] == [strategy, "cpu"]
    assert found["weights"] < 1e-7
    assert found["nonfinite"] == [True, True]
    assert found["kept"] == 0.0
    assert found["after"] < 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero3", "fsdp2"])
def test_ranks_that_share_rows_make_the_update_of_ranks_that_do_not(tmp_path, strategy):
    """Ulysses, of a model whose 4 heads and 2 key-value heads divide; what layers keep waits on the CPU, too."""
    tiny_qwen3.build(tmp_path / "model", seed=3, hidden_size=128, layers=2, intermediate_size=96)
    how = {"strategy": strategy, "sequence_parallel": 2, "offload_activations": True}
    found = launch("against_ddp", tmp_path, 2, how=how, checkpointing=strategy == "fsdp2")
    for (loss, norm), (own_loss, own_norm) in zip(found["ddp"], found["own"], strict=True):
        assert own_loss == pytest.approx(loss, rel=2e-6)
        assert own_norm == pytest.approx(norm, rel=2e-6)
    assert found["weights"] < 5e-7  # attention's sums over other shapes, which AdamW's first steps make larger
    assert found["after"] < 5e-7
    assert found["nonfinite"] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["zero3", "fsdp2"])
def test_a_process_alone_shares_with_nobody_and_may_offload(folder, strategy):
    how = {"strategy": strategy, "offload_optimizer": True, "offload_parameters": True}
    found = launch("against_ddp", folder, 1, how=how)
    assert found["marks"] == [strategy, "cpu"]
    assert found["weights"] < 1e-7
    assert found["after"] < 1e-7


@pytest.mark.slow
def test_heads_that_do_not_divide_are_refused(folder):
    found = launch("refused", folder, 2, how={"strategy": "ddp", "sequence_parallel": 2})
    assert "sequence_parallel" in found["message"]
    assert "num_key_value_heads" in found["message"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [*SHARDED, "ddp"])
def test_states_resume_bit_for_bit_and_under_any_other_strategy(folder, strategy):
    """Saved on two ranks, loaded on two alike; then on two of another kind, and by one alone. Replicas must all be
    filled: one that keeps its start goes on by itself without a word."""
    saved = launch("save", folder, 2, how={"strategy": strategy})
    assert saved["background"], "what is trained meanwhile must not be in a state that is still being written"
    assert saved["bitwise"]
    assert saved["resumed"] == saved["rewound"] == saved["whole"]
    other = SHARDED[SHARDED.index(strategy) - 1] if strategy in SHARDED else "ddp"
    for world, how in ((2, other), (1, "ddp")):
        found = launch("load", folder, world, how={"strategy": how}, state=saved["state"])
        assert found["distance"] < 1e-7
        for theirs, ours in zip(found["losses"], saved["whole"], strict=True):
            assert theirs == pytest.approx(ours, rel=2e-6)
        assert found["inherited"]["moments"] == pytest.approx(saved["moments"], rel=1e-6)
        assert found["inherited"]["learning_rate"] == pytest.approx(0.5e-3)  # warm-up from step 0


@pytest.mark.slow
def test_a_start_check_sees_through_a_launcher_on_two_ranks(folder):
    found = launch("start_check", folder, 2)
    assert found["fsdp2"] == ""
    assert "zero3" in found["other"]
    assert "fsdp2" in found["other"]
    assert "ranks: 4" in found["fewer"]

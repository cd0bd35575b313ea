"""Adapters: what is trained, what the engine and the checkpoint get, what stands for the reference."""

import pytest
import torch

from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import LoraConfig
from cascade_rl.training import lora
from cascade_rl.training.packing import pack, pack_row
from cascade_rl.training.policy import Policy, load_model
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.reference import FrozenModel, WithoutAdapters
from cascade_rl.types import CascadeError
from tests.training.sharded import launch
from tests.training.test_update import accumulate, at, make_policy, sequences

CPU = torch.device("cpu")
CONFIG = LoraConfig(rank=4, alpha=6.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96)
    return folder


@pytest.fixture
def wrapped(checkpoint):
    """A model with adapters that have learned something."""
    model = load_model(checkpoint, CPU)
    lora.wrap_model(model, CONFIG, seed=1)
    return model


def learn(model):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))


IDS = torch.arange(20, 50)[None]


def hidden(model):
    with torch.no_grad():
        return model(input_ids=IDS, position_ids=torch.arange(IDS.shape[1])[None]).logits


def distance(a, b):
    return float((a - b).norm() / b.norm())


def test_only_adapters_are_trained_on_every_linear_layer_but_the_head(wrapped):
    trained = {name for name, p in wrapped.named_parameters() if p.requires_grad}
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    assert len(trained) == 2 * 2 * 7  # two layers of q, k, v, o, gate, up, down
    assert type(wrapped.lm_head) is torch.nn.Linear


def test_it_starts_as_what_it_was_and_ranks_start_alike(wrapped, checkpoint):
    plain = load_model(checkpoint, CPU)
    assert torch.equal(hidden(wrapped), hidden(plain))
    before = torch.get_rng_state()
    lora.wrap_model(plain, CONFIG, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    for (name, a), (_, b) in zip(wrapped.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert all(p.dtype == torch.float32 for p in wrapped.parameters())


def test_merged_weights_by_hand():
    """W = [[1, 2], [3, 4]], A = [[1, 1]], B = [[1], [0]], s = 2: W + s B A = [[3, 4], [3, 4]]."""
    weights = [
        ("embed.weight", torch.zeros(1)),
        ("q.base_layer.weight", torch.tensor([[1.0, 2.0], [3.0, 4.0]])),
        ("q.base_layer.bias", torch.ones(2)),
        ("q.lora_A.default.weight", torch.tensor([[1.0, 1.0]])),
        ("q.lora_B.default.weight", torch.tensor([[1.0], [0.0]])),
        ("norm.weight", torch.ones(1)),
    ]
    found = dict(lora.merged_weights(weights, 2.0))
    assert list(found) == ["embed.weight", "q.bias", "q.weight", "norm.weight"]
    assert found["q.weight"].tolist() == [[3.0, 4.0], [3.0, 4.0]]
    assert weights[1][1].tolist() == [[1.0, 2.0], [3.0, 4.0]]  # the trained ones stay


def test_a_buffer_that_is_used_again_does_not_matter():
    """Gathered weights are valid only until the next is asked for."""
    buffer = torch.zeros(2, 2)

    def gathered():
        for name, values in (("base_layer", [[1.0, 0], [0, 1]]), ("lora_A.default", [[1.0, 0], [0, 0]]), ("lora_B.default", [[1.0, 0], [0, 0]])):  # fmt: skip
            buffer.copy_(torch.tensor(values))
            yield f"q.{name}.weight", buffer

    (merged,) = lora.merged_weights(gathered(), 1.0)
    assert merged[1].tolist() == [[2.0, 0.0], [0.0, 1.0]]


def test_half_a_layer_is_an_error():
    with pytest.raises(ValueError, match=r"\['q'\]"):
        list(lora.merged_weights([("q.base_layer.weight", torch.zeros(2, 2))], 1.0))


def test_merged_names_and_values_are_those_of_a_plain_model(wrapped, checkpoint):
    learn(wrapped)
    expected = hidden(wrapped)
    plain = load_model(checkpoint, CPU)
    weights = dict(lora.merged_weights(wrapped.named_parameters(), CONFIG.scale))
    assert list(weights) == [name for name, _ in plain.named_parameters()]
    assert float((hidden(plain) - expected).abs().max()) > 0.01
    plain.load_state_dict(weights, strict=False)
    assert distance(hidden(plain), expected) < 1e-6


def test_peft_reads_what_is_sent_as_an_adapter(wrapped, checkpoint, tmp_path):
    """In the format of a peft checkpoint, which vLLM reads too."""
    from peft import LoraConfig as PeftConfig
    from peft import PeftModel
    from safetensors.torch import save_file

    learn(wrapped)
    expected = hidden(wrapped)
    save_file(dict(lora.adapter_weights(wrapped.named_parameters())), tmp_path / "adapter_model.safetensors")
    PeftConfig(**CONFIG.peft_settings).save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(load_model(checkpoint, CPU), tmp_path)
    assert distance(hidden(loaded), expected) < 1e-6


def test_with_adapters_off_it_is_what_it_was(wrapped, checkpoint):
    learn(wrapped)
    learned, trained = hidden(wrapped), [p.requires_grad for p in wrapped.parameters()]
    with lora.adapters_off(wrapped):
        assert torch.equal(hidden(wrapped), hidden(load_model(checkpoint, CPU)))
    assert torch.equal(hidden(wrapped), learned)
    assert [p.requires_grad for p in wrapped.parameters()] == trained


def test_what_rounding_loses_by_hand():
    """bfloat16 has 8 bits: 1 + 1/512 becomes 1, and all of it is lost; 1 + 1/128 stays."""
    for step, lost in ((1 / 512, 1.0), (1 / 128, 0.0)):
        weights = [
            ("q.base_layer.weight", torch.ones(1, 1)), ("q.lora_A.default.weight", torch.ones(1, 1)),
            ("q.lora_B.default.weight", torch.full((1, 1), step)), ("norm.weight", torch.full((1,), 1 / 3)),
        ]  # fmt: skip
        assert lora.lost_in_rounding(weights, 1.0, torch.bfloat16) == pytest.approx(lost)
        assert lora.lost_in_rounding(weights, 1.0, torch.float32) == 0.0
    assert lora.lost_in_rounding([("norm.weight", torch.ones(1))], 1.0, torch.bfloat16) == 0.0


def test_layers_that_are_not_there(checkpoint):
    for wanted, message in (
        (["q_prj"], "'q_prj'.*q_proj"),
        (["q_proj", "layers.9.q_proj"], "'layers.9.q_proj'"),
        (".*q_prj", "q_prj'.* whole"),
        (["all-linear"], "'all-linear'"),
        (["lm_head"], "'lm_head'.* head"),
    ):
        with pytest.raises(CascadeError, match=message):
            lora.wrap_model(load_model(checkpoint, CPU), LoraConfig(target_modules=wanted), seed=0)


def test_chosen_layers_alone(checkpoint):
    model = load_model(checkpoint, CPU)
    lora.wrap_model(model, LoraConfig(target_modules=["q_proj", "v_proj"]), seed=0)
    trained = {name.split(".")[4] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"q_proj", "v_proj"}


def policy_of(checkpoint, config=CONFIG, **keys):
    from cascade_rl.recipe.parts import OptimizerConfig

    return Policy(
        checkpoint, OptimizerConfig(learning_rate=1e-2), ranks=Ranks(0, 1, CPU), dtype="float32", total_steps=10,
        gradient_checkpointing=False, chunk_tokens=7, lora=config, seed=1, **keys,
    )  # fmt: skip


def steps(policy, count):
    for _ in range(count):
        accumulate(policy, pack(sequences(), 24), temperature=1.0, engine_temperature=1.0)
        policy.step()


def test_the_engine_gets_whole_weights_or_the_adapter(checkpoint):
    policy = policy_of(checkpoint)
    steps(policy, 2)
    plain = [name for name, _ in load_model(checkpoint, CPU).named_parameters()]
    assert [name for name, _ in policy.named_weights()] == [plain[0], "lm_head.weight", *plain[1:]]  # the head is tied
    adapter = policy_of(checkpoint, LoraConfig(rank=4, alpha=6.0, sync="adapter"))
    names = [name for name, _ in adapter.named_weights()]
    assert names[0] == "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    assert len(names) == 2 * 2 * 7


def test_a_policy_of_adapters_learns_and_its_checkpoint_says_what_it_says(checkpoint):
    policy, row = policy_of(checkpoint), pack(sequences(), 1000)[0]
    before = policy.score(row).logprobs
    frozen = {name: p.clone() for name, p in policy.model.named_parameters() if not p.requires_grad}
    steps(policy, 3)
    after = policy.score(row).logprobs
    assert float((after - before).abs().max()) > 0.01
    assert all(torch.equal(p, frozen[name]) for name, p in policy.model.named_parameters() if name in frozen)
    plain = make_policy(checkpoint)
    plain.model.load_state_dict(policy.whole_state_dict(torch.float32), strict=False)
    assert plain.score(row).logprobs.tolist() == pytest.approx(after.tolist(), abs=1e-5)


def test_the_reference_is_the_policy_without_its_adapters(checkpoint):
    policy = policy_of(checkpoint)
    steps(policy, 2)
    reference, given = WithoutAdapters(policy), at(0.7, sequences())
    found = reference.fill_row(pack_row(reference.fill(given))).reference_logprobs
    frozen = FrozenModel(checkpoint, device=CPU, dtype="float32", chunk_tokens=7, row_tokens=1000)
    expected = pack_row(frozen.fill(given)).reference_logprobs
    assert found.tolist() == expected.tolist()


def test_resumed_adapters_go_on_bit_for_bit_from_a_small_state(checkpoint, tmp_path):
    whole, first, second = (policy_of(checkpoint) for _ in range(3))
    steps(whole, 4)
    steps(first, 2)
    first.save(tmp_path)
    kept = torch.load(tmp_path / "policy-00000-of-00001.pt")
    assert len(kept) == 2 * 2 * 7
    assert all("lora_" in name for name in kept)
    second.load(tmp_path)
    steps(second, 2)
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("other", [LoraConfig(target_modules=["q_proj"]), LoraConfig(rank=5)])
def test_the_state_of_other_adapters_is_refused(checkpoint, tmp_path, other):
    policy_of(checkpoint, other).save(tmp_path)
    with pytest.raises(CascadeError, match="shape|model"):
        policy_of(checkpoint).load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {"strategy": "ddp"}, {"strategy": "zero2"}, {"strategy": "zero3"}, {"strategy": "fsdp2"},
        {"strategy": "zero3", "sequence_parallel": 2},
    ],
    ids=lambda how: "-".join(map(str, how.values())),
)  # fmt: skip
def test_adapters_spread_over_two_ranks(tmp_path, how):
    tiny_qwen3.build(tmp_path / "model", seed=3, hidden_size=128, layers=2, intermediate_size=96)
    found = launch("adapters", tmp_path, 2, how=how)
    assert found["start"] == found["base"] == 0.0  # merged with B = 0
    assert found["weights"] < 1e-6
    assert found["checkpoint"] < 1e-6
    assert found["adapters"] < 1e-4  # small numbers themselves
    assert found["learned"] > 1e-4
    assert found["lost"] > 0
    assert found["reference"] < 1e-5
    assert found["resumed"]
    for ours, theirs in zip(found["own"], found["ddp"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)

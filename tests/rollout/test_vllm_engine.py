"""A real vLLM engine in this process, against transformers: same weights, same log-probs, same tokens whatever the batch."""

import os

import pytest
import torch

from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import EngineConfig, SamplingConfig
from cascade_rl.recipe.parts import OptimizerConfig
from cascade_rl.rollout.engine import Request, request_seed
from cascade_rl.types import CascadeError, Stop

pytestmark = pytest.mark.slow
SAMPLING = SamplingConfig(max_new_tokens=24)
PROMPT = tuple(range(30, 50))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96)
    return folder


def opened(checkpoint, renormalised, kept=0):
    from cascade_rl.rollout.vllm_engine import VllmEngine

    os.environ["OMP_NUM_THREADS"] = "1"
    return VllmEngine(
        checkpoint, EngineConfig(max_num_seqs=16), dtype="float32", cpu=True, world_size=1, max_model_len=96,
        renormalised=renormalised, temperature=1.0, tokenizer=tiny_qwen3.build_tokenizer(),
        kept=kept,
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine(checkpoint):
    return opened(checkpoint, renormalised=True)


@pytest.fixture(scope="module")
def untruncated(checkpoint):
    """An engine of a stage with top-p 1 and no top-k: it reports log-probs at the sampling temperature."""
    return opened(checkpoint, renormalised=False)


@pytest.fixture
def policy(checkpoint):
    from cascade_rl.training.policy import Policy
    from cascade_rl.training.ranks import Ranks

    return Policy(
        checkpoint, OptimizerConfig(learning_rate=1e-3), ranks=Ranks(0, 1, torch.device("cpu")), dtype="float32",
        total_steps=1, gradient_checkpointing=False, chunk_tokens=64,
    )  # fmt: skip


def draw(engine, requests):
    return {(r.prompt_id, r.index): r for r in engine.generate(requests)}


def requests(count, sampling=SAMPLING):
    return [Request(f"p{i}", 0, (*PROMPT, 60 + i), request_seed("t", i), sampling) for i in range(count)]


def gap(policy, engine, sampling=SAMPLING, engine_temperature=None):
    from cascade_rl.stages.checkpoints.handover import probe_logprobs

    temperature = engine.logprob_temperature if engine_temperature is None else engine_temperature
    return probe_logprobs(
        policy, engine, [(*PROMPT, 60 + i) for i in range(4)], sampling=sampling, engine_temperature=temperature,
    )  # fmt: skip


def test_tokens_do_not_depend_on_what_they_are_batched_with(engine):
    together = draw(engine, requests(12))
    backwards = draw(engine, requests(12)[::-1])
    alone = draw(engine, requests(12)[5:6])
    assert backwards == together
    assert alone["p5", 0] == together["p5", 0]
    other_seed = draw(engine, [Request("p5", 0, (*PROMPT, 65), 1, SAMPLING)])
    assert other_seed["p5", 0].token_ids != together["p5", 0].token_ids


def test_lengths_stops_and_text(engine):
    for rollout in draw(engine, requests(12)).values():
        assert len(rollout.token_ids) == len(rollout.logprobs) <= 24
        assert rollout.stop is (Stop.EOS if rollout.token_ids[-1] == engine._eos else Stop.LENGTH)
        assert rollout.truncated == (len(rollout.token_ids) == 24 and rollout.token_ids[-1] != engine._eos)
        assert "<|im_end|>" not in rollout.text or rollout.token_ids.count(engine._eos) > 1


def test_streamed_weights_are_served_and_agree_with_the_trainer(engine, policy):
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    assert gap(policy, engine) > 1e-2  # not yet sent: the engine serves older weights
    engine.load_weights(policy.named_weights(), version=7)
    assert gap(policy, engine) < 2e-5
    assert {r.version for r in draw(engine, requests(2)).values()} == {7}


def test_a_tied_head_left_out_would_be_noticed(engine, policy):
    """Nothing fails by itself when the head is not sent; the gap says it."""
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.1)
    engine.load_weights(((n, w) for n, w in policy.named_weights() if n != "lm_head.weight"), version=8)
    assert gap(policy, engine) > 1e-2
    engine.load_weights(policy.named_weights(), version=9)
    assert gap(policy, engine) < 2e-5


@pytest.mark.parametrize(
    "keys", [{"top_p": 0.95}, {"top_k": 20}, {"temperature": 0.6, "top_p": 0.95}, {"temperature": 1.2, "top_k": 20}]
)
def test_truncated_sampling_is_compared_on_one_support(engine, untruncated, policy, keys):
    sampling = SAMPLING.model_copy(update=keys)
    engine.load_weights(policy.named_weights(), version=1)
    assert engine.logprob_temperature == 1.0
    assert gap(policy, engine, sampling) < 2e-5
    # Without the correction the engine's log-probs sum to one over the kept tokens, ours over all.
    untruncated.load_weights(policy.named_weights(), version=1)
    assert gap(policy, untruncated, sampling, engine_temperature=sampling.temperature) > 1e-2


@pytest.mark.parametrize("temperature", [0.6, 1.2])
def test_the_temperature_is_part_of_what_is_compared(untruncated, policy, temperature):
    sampling = SAMPLING.model_copy(update={"temperature": temperature})
    untruncated.load_weights(policy.named_weights(), version=1)
    assert gap(policy, untruncated, sampling, engine_temperature=temperature) < 2e-5
    assert gap(policy, untruncated, sampling, engine_temperature=1.0) > 1e-2  # the trainer's side left uncorrected


def test_a_stop_text_ends_a_completion_and_stays_in_it(engine):
    free = draw(engine, requests(12))
    tokenizer = tiny_qwen3.build_tokenizer()
    # A text that straddles tokens: the last letters of one and the first of the next, somewhere within a completion.
    texts = {key: [tokenizer.decode([token]) for token in r.token_ids[:-1]] for key, r in free.items()}
    key, place = next((k, i) for k, t in texts.items() for i in range(4, 16) if t[i].isascii() and t[i + 1].isascii())
    stop = texts[key][place][-1] + texts[key][place + 1][0]
    stopped = draw(engine, requests(12, SAMPLING.model_copy(update={"stop": [stop, "never said"]})))
    for where, rollout in stopped.items():
        assert len(rollout.logprobs) == len(rollout.token_ids)
        if stop not in free[where].text:
            assert rollout == free[where]
            continue
        assert rollout.stop is Stop.STRING
        assert not rollout.truncated
        n = len(rollout.token_ids)
        assert rollout.token_ids == free[where].token_ids[:n]  # what was sampled, whole tokens
        assert rollout.logprobs == free[where].logprobs[:n]
        assert rollout.text == tokenizer.decode(rollout.token_ids)
        assert stop in rollout.text
        assert stop not in tokenizer.decode(rollout.token_ids[:-1])  # and no token later than needed
    assert stopped[key].stop is Stop.STRING


def test_an_abort_leaves_nothing_behind(engine):
    uneven = [Request(f"p{i}", 0, (*PROMPT, 60 + i), i, SamplingConfig(max_new_tokens=2 + 5 * i)) for i in range(12)]
    seen = []
    for rollout in engine.generate(uneven, should_abort=lambda: len(seen) >= 2):
        seen.append(rollout)
    assert 2 <= len(seen) < 12
    assert not engine._llm.llm_engine.has_unfinished_requests()
    assert len(draw(engine, requests(12))) == 12


class Recorded:
    """Stands in for vLLM's LLM: what is asked of it, in order."""

    def __init__(self):
        self.calls = []

    def sleep(self, level):
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags):
        self.calls.append(f"wake {tags[0]}")

    def collective_rpc(self, method, kwargs):
        self.calls.append(f"{method} {[name for name, _ in kwargs['weights_iterator']]}")

    def reset_prefix_cache(self):
        self.calls.append("reset")
        return self.calls.count("reset") < 3


def test_a_gpu_engine_wakes_in_stages_around_the_weights(monkeypatch):
    from cascade_rl.rollout import vllm_engine
    from cascade_rl.rollout.device_memory import DeviceMemory

    engine = vllm_engine.VllmEngine.__new__(vllm_engine.VllmEngine)
    engine._llm, engine._can_sleep, engine._asleep, engine._requests = Recorded(), True, False, {}
    engine._adapter = None
    engine.memory = DeviceMemory(lambda: (2**30, 2**31))
    monkeypatch.setattr(vllm_engine.torch.cuda, "empty_cache", lambda: engine._llm.calls.append("empty cache"))
    weights = [("a", torch.zeros(1)), ("b", torch.zeros(1))]
    engine.load_weights(weights, version=1)
    engine.sleep()
    engine.sleep()
    engine.load_weights(weights, version=2)
    assert engine._llm.calls == [
        "reload_weights ['a', 'b']", "reset", "sleep 2",
        "empty cache", "wake weights", "reload_weights ['a', 'b']", "wake kv_cache", "reset",
    ]  # fmt: skip
    assert {key.split("/")[1].split("_")[0] for key in engine.memory.gib} == {"load", "sleep", "wake"}
    with pytest.raises(CascadeError, match="forget"):
        engine.load_weights(weights, version=3)
    assert engine._version == 2


def test_an_engine_that_dies_says_what_is_lost(engine, monkeypatch):
    def dead():
        raise RuntimeError("EngineCore died")

    monkeypatch.setattr(engine._llm.llm_engine, "step", dead)
    with pytest.raises(CascadeError, match="3 rollouts.*RuntimeError: EngineCore died"):
        draw(engine, requests(3))
    monkeypatch.undo()
    assert len(draw(engine, requests(3))) == 3


def test_an_engine_that_cannot_start_names_the_checkpoint(tmp_path):
    from cascade_rl.rollout.vllm_engine import VllmEngine

    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CascadeError, match=str(tmp_path)):
        VllmEngine(
            tmp_path, EngineConfig(), dtype="float32", cpu=True, world_size=1, max_model_len=64, renormalised=False,
            temperature=1.0, tokenizer=tiny_qwen3.build_tokenizer(),
        )  # fmt: skip


def test_requests_are_added_and_cancelled_while_others_generate(engine):
    expected = draw(engine, requests(6))
    first, late = requests(6)[:4], requests(6)[4:]
    for request in first:
        engine.submit(request)
    assert engine.in_flight == 4
    seen = engine.poll()  # one token each
    assert engine.longest_running() == 1
    engine.cancel("p1", 0)
    engine.cancel("p1", 0)
    engine.cancel("never asked", 0)
    for request in late:
        engine.submit(request)
    while engine.in_flight:
        seen += engine.poll(0.1)
    assert {(r.prompt_id, r.index): r for r in seen} == {k: r for k, r in expected.items() if k != ("p1", 0)}
    assert not engine._llm.llm_engine.has_unfinished_requests()
    assert engine.poll(10.0) == []  # at once
    assert engine.longest_running() is None


def test_one_rollout_is_not_asked_for_twice_and_none_spans_two_versions(engine, policy):
    engine.submit(requests(1)[0])
    with pytest.raises(ValueError, match=r"\b0\b.*\bp0\b"):
        engine.submit(requests(1)[0])
    with pytest.raises(RuntimeError, match="1 rollouts"):
        engine.load_weights(policy.named_weights(), version=2)
    engine.clear()
    assert engine.in_flight == 0
    engine.load_weights(policy.named_weights(), version=2)


@pytest.mark.parametrize("keys", [{"top_k": 20}, {"top_k": 5, "top_p": 0.9}])
def test_kept_tokens_give_the_probabilities_that_were_drawn_by(checkpoint, policy, keys):
    """The engine says what it kept, and the trainer renormalises over the same: both tell the truncated policy's own
    log-probs, which those over the whole vocabulary are not."""
    sampling = SAMPLING.model_copy(update=keys)
    engine = opened(checkpoint, renormalised=True, kept=keys["top_k"])
    try:
        engine.load_weights(policy.named_weights(), version=1)
        assert gap(policy, engine, sampling) < 2e-5
        for rollout in draw(engine, requests(4, sampling)).values():
            assert rollout.kept.shape[0] == len(rollout.token_ids)
            assert (rollout.kept >= 0).sum(1).max() <= keys["top_k"]
            for token, ids in zip(rollout.token_ids, rollout.kept.tolist(), strict=True):
                assert token in ids
                assert len({i for i in ids if i >= 0}) == sum(i >= 0 for i in ids)
        (plain,) = draw(engine, requests(1, SAMPLING)).values()
        assert plain.kept is None  # a benchmark's request, say, without top-k
    finally:
        engine.close()


@pytest.mark.parametrize(("top_k", "says"), [(0, False), (5, True), (20, False)])
def test_only_requests_within_the_kept_top_k_say_what_was_kept(top_k, says):
    """A benchmark with a larger top-k would ask for more log-probs than the engine was opened for."""
    from cascade_rl.rollout.vllm_engine import VllmEngine

    one = VllmEngine.__new__(VllmEngine)
    one._kept = 5
    assert one._says_kept(Request("p", 0, PROMPT, 1, SamplingConfig(max_new_tokens=4, top_k=top_k))) is says

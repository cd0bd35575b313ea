"""Options of a stage that contradict each other, or would do nothing."""

from __future__ import annotations

import pytest

from cascade_rl.recipe import DistillStage, RlStage
from cascade_rl.recipe.keys_page import keys_page
from tests.messages import says


@pytest.mark.parametrize(
    ("keys", "place", "words"),
    [
        ("min_learning_rate: 1e-7", "11: stages.math.min_learning_rate", "nothing constant`"),
        ("lr_horizon_steps: 50", "11: stages.math.lr_horizon_steps", "nothing constant`"),
        ("stop_window: 3", "11: stages.math.stop_window", "`stop_when`"),
        ("{stop_window: 21, stop_when: {reward: '> 0.9'}}", "11: stages.math.stop_window", "21 20"),
        ("stop_when: {happiness: '> 3'}", "11: stages.math.stop_when.happiness", "metric mean_length entropy"),
        ("stop_when: {rewards: '> 3'}", "11: stages.math.stop_when.rewards", "metric reward"),
        ("stop_when: {advantage: '> 3'}", "11: stages.math.stop_when.advantage", "metric"),
        (
            "{overlong: soft, overlong_buffer: 200, rollout: {max_new_tokens: 100}}",
            "12: stages.math.overlong_buffer",
            "200 rollout.max_new_tokens 100",
        ),
        ("loss: {fixed_length: 100}", "11: stages.math.loss.fixed_length", "fixed`"),
        ("rollout: {top_k: 1}", "11: stages.math.rollout.top_k", "identical 0"),
        ("rollout: {temperature: 1e-9}", "11: stages.math.rollout.temperature", "vLLM 0.01"),
        ("rollout: {stop: ['x', '']}", "11: stages.math.rollout.stop", "empty"),
        ("mismatch: {low: 0.5}", "11: stages.math.mismatch.low", "`mask`"),
        ("mismatch: {mask: difference, high: 5}", "11: stages.math.mismatch.high", "(5) differ 1"),
        ("mismatch: {mask: difference, low: 0.5, high: 0.3}", "11: stages.math.mismatch.low", "below (0.5) (0.3)"),
        ("mismatch: {mask: band, low: 2, high: 3}", "11: stages.math.mismatch.low", "side (2) (3) 1"),
        ("mismatch: {mask: geometric, low: 0.1, high: 0.9}", "11: stages.math.mismatch.high", "side (0.1) (0.9) 1"),
        ("lora: {target_modules: q_proj}", "11: stages.math.lora.target_modules", "[q_proj]"),
        ("lora: {target_modules: '(q_proj'}", "11: stages.math.lora.target_modules", "'(q_proj' regular"),
        ("lora: {target_modules: []}", "11: stages.math.lora.target_modules", "least one"),
        ("beta: 0.04", "11: stages.math.beta", "unknown loss.kl"),
        ("num_generations: 4", "11: stages.math.num_generations", "unknown group_size"),
    ],
)
def test_nonsense_is_named_at_its_key(problem, valid, keys, place, words):
    inner = keys[1:-1] if keys.startswith("{") else keys
    lines = [line.strip() for line in _split(inner)]
    found = problem(valid.replace("kind: rl", "\n    ".join(["kind: rl", *lines])))
    says(found, f"recipe.yaml:{place}", *words.split())


def _split(text: str) -> list[str]:
    """Keys of a flow mapping, split at commas that are not within brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


@pytest.mark.parametrize(
    "keys",
    [
        "mismatch: {mask: band, low: 0.5, high: 5}",
        "mismatch: {mask: difference, high: 0.3}",
        "stop_when: {reward/mean: '> 0.9'}",
        "lora: {target_modules: '.*_proj'}",
        "lora: {target_modules: [q_proj, v_proj]}",
        "rollout: {temperature: 0.01, top_k: 2}",
        "loss: {aggregate: fixed, fixed_length: 100}",
    ],
)
def test_sense_passes(load, valid, keys):
    assert load(valid.replace("kind: rl", f"kind: rl\n    {keys}"))


@pytest.mark.parametrize(("kind", "meant"), [("grpo", "rl"), ("PPO", "rl"), ("rm", "reward_model")])
def test_other_words_for_a_kind(problem, valid, kind, meant):
    found = problem(valid.replace("kind: rl", f"kind: {kind}"))
    says(found, "recipe.yaml:10: stages.math.kind", f"'{kind}'", meant)


def test_the_page_of_keys_has_every_section():
    page = keys_page()
    for heading in ("## `kind: rl`", "## `rollout`", "## `mismatch`", "## `sharding`", "## `reward`", "## `gates`"):
        assert heading in page
    assert "| `group_size` | a whole number, at least 2 | `8` |" in page


def rl(**keys):
    base = {"name": "m", "data": [{"source": "x"}], "reward": {"use": "a:b"}, "learning_rate": 1e-6, "steps": 4}
    return RlStage.model_validate({**base, **keys})


def distill(**keys):
    base = {"name": "d", "data": [{"source": "x"}], "learning_rate": 1e-6, "steps": 4}
    return DistillStage.model_validate({**base, **keys})


KEPT = {"mismatch": {"support": "kept"}}
TOP_K = {"rollout": {"top_k": 20}}


@pytest.mark.parametrize(
    ("stage", "word"),
    [
        (rl(**KEPT), "top_k"),
        (rl(**KEPT, rollout={"top_p": 0.9}), "top_k"),
        (rl(**KEPT, **TOP_K, engine={"placement": "dedicated"}), "colocated"),
        (distill(**KEPT, **TOP_K, teacher={"url": "http://localhost:8000/v1"}), "url"),
        (rl(**KEPT, **TOP_K), None),
        (rl(**KEPT, rollout={"top_k": 20, "top_p": 0.9}), None),
        (distill(**KEPT, **TOP_K, teacher={"model": "m"}), None),
    ],
)
def test_kept_tokens_need_what_gives_them(stage, word):
    found = [message for keys, message in stage.contradictions() if keys == ("mismatch", "support")]
    assert [word in message for message in found] == ([] if word is None else [True])


SEVERAL = {"updates_per_batch": 2, "loss": {"clip_high": 0.2}}


@pytest.mark.parametrize(
    ("stage", "count"),
    [
        (rl(**SEVERAL), 0),  # nothing is cut off
        (rl(**TOP_K), 0),  # the ratio is 1
        (rl(**SEVERAL, **TOP_K), 1),
        (rl(**SEVERAL, rollout={"top_p": 0.95}), 1),
        (rl(mismatch={"cap": 2.0}, **TOP_K), 1),
        (rl(mismatch={"mask": "difference", "high": 0.3}, **TOP_K), 1),
        (distill(teacher={"model": "m"}, **TOP_K), 1),
        (rl(**SEVERAL, **TOP_K, **KEPT), 0),
    ],
)
def test_raw_ratios_under_truncated_sampling_are_told(stage, count):
    assert len(stage.notes()) == count


PAIRS = """
name: pairs
model: tiny-qwen3
stages:
  - name: rm
    kind: reward_model
    data: [{source: pairs.jsonl}]
    learning_rate: 2e-6
    steps: 20
"""


@pytest.mark.parametrize(
    ("keys", "where", "words"),
    [
        ("evaluate_every: 5", "10: stages.rm.evaluate_every", "held_out"),
        ("centering: 0", "10: stages.rm.centering", "0"),
        ("{centering: 0.01, trainer: trl, lora: {rank: 4}}", "12: stages.rm.lora", "trl"),
    ],
)
def test_keys_of_a_reward_model_that_do_nothing(problem, keys, where, words):
    inner = keys[1:-1] if keys.startswith("{") else keys
    text = PAIRS + "".join(f"    {line.strip()}\n" for line in _split(inner))
    says(problem(text), f"recipe.yaml:{where}", *words.split())


def test_keys_of_a_reward_model_stay_out_of_its_identity():
    """Where they are not set, or say how it runs rather than what it computes."""
    from cascade_rl.recipe import RewardModelStage
    from cascade_rl.store.identity import identity_fields

    keys = {"name": "rm", "data": [{"source": "pairs.jsonl"}], "learning_rate": 1e-6, "steps": 1, "held_out": 4}
    plain = identity_fields(RewardModelStage(**keys))
    assert {"centering", "lora", "trainer", "evaluate_every", "tokens_per_micro_batch"}.isdisjoint(plain)
    assert identity_fields(RewardModelStage(**keys, evaluate_every=3, tokens_per_micro_batch=64)) == plain
    assert identity_fields(RewardModelStage(**keys, centering=0.01)) == {**plain, "centering": 0.01}


def test_a_micro_batch_size_of_earlier_recipes_is_told_not_refused(load):
    (stage,) = load(PAIRS + "    micro_batch_size: 4\n").recipe.stages
    (note,) = stage.notes()
    assert "micro_batch_size" in note
    assert "tokens_per_micro_batch" in note
    (stage,) = load(PAIRS + "    micro_batch_size: 4\n    trainer: trl\n").recipe.stages
    assert stage.notes() == []

"""Options of a stage that contradict each other, or would do nothing."""

from __future__ import annotations

import pytest

from cascade_rl.recipe import DistillStage, RlStage
from cascade_rl.recipe.choices import contradictions, notes
from cascade_rl.recipe.keys_page import keys_page


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("min_learning_rate: 1e-7", "min_learning_rate: does nothing under `lr_schedule: constant`"),
        ("lr_horizon_steps: 50", "lr_horizon_steps: does nothing under `lr_schedule: constant`"),
        ("stop_window: 3", "stop_window: there is no `stop_when` that looks at it"),
        ("{stop_window: 21, stop_when: {reward: '> 0.9'}}", "stop_window: a mean of 21 steps is never known in 20"),
        ("stop_when: {happiness: '> 3'}", "stop_when.happiness: a rl stage has no such metric; names are:"),
        ("stop_when: {rewards: '> 3'}", "did you mean reward?"),
        ("stop_when: {advantage: '> 3'}", "stop_when.advantage: a rl stage has no such metric"),
        (
            "{overlong: soft, overlong_buffer: 200, rollout: {max_new_tokens: 100}}",
            "overlong_buffer: 200 tokens are more than rollout.max_new_tokens, 100",
        ),
        ("loss: {fixed_length: 100}", "loss.fixed_length: belongs to `aggregate: fixed`"),
        ("rollout: {top_k: 1}", "top_k: 1 makes the rollouts of a group identical"),
        ("rollout: {temperature: 1e-9}", "vLLM samples at 0.01 whatever is asked below it"),
        ("rollout: {stop: ['x', '']}", "an empty text would end every completion"),
        ("mismatch: {low: 0.5}", "bounds of a `mask`"),
        ("mismatch: {mask: difference, high: 5}", "probabilities never differ by 1"),
        ("mismatch: {mask: difference, low: 0.5, high: 0.3}", "low (0.5) must be below high (0.3)"),
        ("mismatch: {mask: band, low: 2, high: 3}", "must lie on either side of 1"),
        ("mismatch: {mask: geometric, low: 0.1, high: 0.9}", "must lie on either side of 1"),
        ("lora: {target_modules: q_proj}", "write [q_proj]"),
        ("lora: {target_modules: '(q_proj'}", "is no regular expression"),
        ("lora: {target_modules: []}", "name at least one linear layer"),
        ("beta: 0.04", "unknown key; it is loss.kl here"),
        ("num_generations: 4", "unknown key; it is group_size here"),
    ],
)
def test_nonsense_is_named_at_its_key(problem, valid, keys, message):
    inner = keys[1:-1] if keys.startswith("{") else keys
    lines = [line.strip() for line in _split(inner)]
    found = problem(valid.replace("kind: rl", "\n    ".join(["kind: rl", *lines])))
    assert "stages.math" in found
    assert message in found


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
    assert f"it is {meant} here" in problem(valid.replace("kind: rl", f"kind: {kind}"))


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
    found = [message for keys, message in contradictions(stage) if keys == ("mismatch", "support")]
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
    assert len(notes(stage)) == count

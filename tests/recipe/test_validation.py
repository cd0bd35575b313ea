"""Every mistake in plain words, at its line, with the nearest valid key."""

from __future__ import annotations

import pytest

from cascade_rl.recipe import RecipeError


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("group_sise: 4", "group_sise: unknown key; did you mean group_size?"),
        ("temperature: 0.7", "temperature: unknown key here; it belongs to rollout.temperature"),
        ("limit: 5", "limit: unknown key here; it belongs to an entry of `data`"),
        ("timeout_s: 5", "timeout_s: unknown key here; it belongs to reward.timeout_s"),
        ("max_new_token: 5", "max_new_token: unknown key; did you mean max_new_tokens in `rollout`?"),
        ("epochs: 2", "epochs: unknown key here; it belongs to stages of kind sft"),
        ("dtype: auto", "dtype: unknown key here; it belongs to the file's top level"),
        ("after_each_stage: []", "unknown key here; it belongs to `evaluate` at the file's top level"),
        ("extend: sft-1", "extend: unknown key; did you mean extends?"),
        ("rollout: {group_size: 4}", "rollout.group_size: unknown key here; it belongs to the stage itself"),
        ("rollout: {temprature: 1}", "rollout.temprature: unknown key; did you mean temperature?"),
        ("rollout: {qqq: 1}", "unknown key; the keys here are max_new_tokens, temperature, top_p, top_k"),
        ("qqq: 1", "qqq: unknown key"),
        ("group_size: 1", "group_size: must be at least 2, not 1"),
        ("group_size: two", "group_size: must be a whole number, not 'two'"),
        ("group_size: 8.5", "group_size: must be a whole number, not 8.5"),
        ("group_size: 1e1", "group_size: must be a whole number, not 10.0; write 10"),
        ("group_size: true", "group_size: must be a whole number, not true"),
        ("group_size: 1_000", "not '1_000'; write 1000"),
        ('group_size: "8"', "not '8'; write 8 without quotes"),
        ("group_size:", "group_size: must be a whole number, not nothing"),
        ("weight_decay: -1", "weight_decay: must be at least 0, not -1"),
        ("weight_decay: .inf", "weight_decay: must be a finite number, not inf"),
        ("betas: [0.9]", "betas.1: missing; must be a number"),
        ("betas: [0.9, x]", "betas.1: must be a number, not 'x'"),
        ("betas: 0.9", "betas: must be a list of 2 numbers, not 0.9"),
        ("gradient_checkpointing: no", "must be true or false, not 'no'; write false"),
        ("overlong: filtre", "must be one of filter, penalise, score or soft, not 'filtre'; did you mean filter?"),
        ("rollout: 5", "rollout: must be a mapping with keys such as max_new_tokens, temperature, top_p, not 5"),
        ("rollout: {top_p: 1.5}", "rollout.top_p: must be above 0 and at most 1, not 1.5"),
        ("rollout: {temperature: 0}", "rollout.temperature: temperature 0 makes the rollouts of a group identical"),
        ("engine: [1]", "engine: must be a mapping with keys such as"),
        ("engine: {placement: dedicated, urls: [node2:8000]}", "addresses such as http://node2:8000, not 'node2:8000'"),
        ("engine: {placement: dedicated, urls: [http://a:1, http://a:1]}", "`urls` names a server twice"),
        ("engine: {urls: [http://a:1]}", "go with `placement: dedicated`"),
        ("engine: {servers: 2}", "go with `placement: dedicated`"),
        ("engine: {placement: dedicated, urls: [http://a:1], servers: 2}", "give one of them"),
    ],
)
def test_one_wrong_line_in_a_stage(problem, valid, line, message):
    found = problem(f"{valid}    {line}\n")
    assert found.startswith("recipe.yaml:15: stages.math.")
    assert message in found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sed: 3", "sed: unknown key; did you mean seed?"),
        ("accelerate: x", "accelerate: unknown key here; it belongs to launch.accelerate"),
        ("group_size: 4", "group_size: unknown key here; it belongs to an entry of `stages`"),
        ("default: {}", "default: unknown key; did you mean defaults?"),
        ("template: {mode: think}", "template.mode: must be one of thinking, instruct, unified or native, not"),
        (
            "template: thinking",
            "template: must be a mapping with keys such as mode, system, not 'thinking'",
        ),
        ("evaluate: [aime24]", "evaluate: must be a mapping with keys such as"),
        (
            "evaluate: {after_each_stage: aime24}",
            "must be a list, not 'aime24'; begin each entry with a dash",
        ),
        ("evaluate: {after_each_stage: [5]}", "evaluate.after_each_stage.0: must be a benchmark's name, or a mapping"),
        ("evaluate: {after_each_stage: [{use: a, sample: 3}]}", "0.sample: unknown key; did you mean samples?"),
        ("seed: x", "seed: must be a whole number, not 'x'"),
        ("description: 5", "description: must be text, not 5; put it in quotes"),
        ("description: [a, b]", "description: must be text, not a list of 2"),
        ("tracking: {wandb: {mode: offlin}}", "tracking.wandb.mode: must be one of auto, online or offline, not"),
    ],
)
def test_one_wrong_line_at_the_top(problem, valid, line, message):
    found = problem(f"{line}\n{valid}")
    assert found.startswith("recipe.yaml:1: ")
    assert message in found


def test_a_definition_of_a_benchmark_is_judged_as_one(problems, valid):
    text = valid + "evaluate:\n  after_each_stage:\n    - aime24\n    - name: mine\n      data: []\n"
    assert problems(text) == [
        "recipe.yaml:18: evaluate.after_each_stage.1.reward: missing; must be a mapping with use",
        "recipe.yaml:19: evaluate.after_each_stage.1.data: must be a list of at least 1 entry, not an empty list",
    ]


def test_wrong_names(problems, valid):
    rule = "lower-case letters, digits, dots, dashes and underscores, at most 64"
    found = problems(valid.replace("name: math", "name: Math RL").replace("name: tiny", "name: 5"))
    assert found == [
        f"recipe.yaml:1: name: must be a name ({rule}), not 5; put it in quotes",
        f"recipe.yaml:9: stages.Math RL.name: 'Math RL' will not do as a name: {rule}",
    ]


def test_missing_keys_name_the_line_of_their_section(problems, valid):
    text = valid.replace("    learning_rate: 2e-6\n", "").replace('use: "rewards.math:verify"', "timeout_s: 3")
    assert set(problems(text)) == {
        "recipe.yaml:9: stages.math.learning_rate: missing; must be a number, above 0 and at most 1",
        "recipe.yaml:12: stages.math.reward.use: missing; must be text",
    }


def test_stages_of_no_known_kind(problems, valid):
    assert problems(valid.replace("    kind: rl\n", "")) == [
        "recipe.yaml:9: stages.math.kind: missing; must be one of sft or reward_model or rl or distill"
    ]
    assert problems(valid.replace("kind: rl", "kind: dpo")) == [
        "recipe.yaml:10: stages.math.kind: there is no kind 'dpo'; kinds are: sft, reward_model, rl, distill"
    ]
    assert problems(valid.replace("kind: rl", "kind: sfft")) == [
        "recipe.yaml:10: stages.math.kind: there is no kind 'sfft'; did you mean sft?"
    ]
    assert problems(valid.replace("kind: rl", "kind: [rl]"))[0].startswith(
        "recipe.yaml:10: stages.math.kind: there is no kind a list of 1"
    )


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("", "recipe.yaml:1: stages: missing; must be a list of stages"),
        ("stages:\n", "recipe.yaml:3: stages: must be a list of stages, each beginning with `- name:`, not nothing"),
        ("stages: []\n", "recipe.yaml:3: stages: must list at least one stage that is not skipped"),
        (
            "stages: {a: 1}\n",
            "recipe.yaml:3: stages: must be a list of stages, each beginning with `- name:`, not a",
        ),
        ("stages: [5]\n", "recipe.yaml:3: stages.0: must be a mapping with name, kind and data, not 5"),
        (
            "stages: [{}]\n",
            "recipe.yaml:3: stages.0.kind: missing; must be one of sft or reward_model or rl or distill",
        ),
    ],
)
def test_no_usable_stages(problem, stages, message):
    assert problem(f"name: x\nmodel: y\n{stages}").startswith(message)


def test_sft_wants_one_measure_of_length(problems, valid):
    found = problems(valid.replace("    steps: 10\n", "    steps: 10\n    epochs: 1\n"))
    assert found == ["recipe.yaml:8: stages.sft-1.steps: give exactly one of `epochs` and `steps`"]


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ("updates_per_batch: 2", "15: stages.math.updates_per_batch: several"),
        ("modes: half\nprompts_per_step: 3", "16: stages.math.prompts_per_step: modes: half needs an even"),
        ("mismatch:\n  mask: band\n  low: 2\n  high: 3", "17: stages.math.mismatch.low: low (2)"),
        ("overlong: penalise\noverlong_buffer: 4", "16: stages.math.overlong_buffer: overlong: soft and"),
        ("lora:\n  rank: 4\n  sync: adapter\nengine: {placement: dedicated}", "17: stages.math.lora.sync: lora.sync"),
        ("overlong: soft", "15: stages.math.overlong: overlong: soft and"),
    ],
)
def test_keys_that_do_not_go_together_are_shown_where_one_stands(problem, valid, lines, place):
    text = valid + "".join(f"    {line}\n" for line in lines.splitlines())
    assert problem(text).startswith(f"recipe.yaml:{place}")


def test_two_stages_on_one_line_are_told_apart(problems):
    stage = "{{name: {}, kind: sft, data: [{{source: x}}], steps: 1}}"
    found = problems(f"name: x\nmodel: y\nstages: [{stage.format('a')}, {stage.format('b')}]\n")
    assert found == [
        f"recipe.yaml:3: stages.{name}.learning_rate: missing; must be a number, above 0 and at most 1"
        for name in ("a", "b")
    ]


def test_everything_wrong_is_told_at_once(load, valid):
    """Unknown keys, wrong values, structure and data, in one message."""
    text = valid.replace("steps: 10", "steps: 10\n    warmup_steps: 10").replace(
        "kind: rl", "kind: rl\n    init: sft-l"
    )
    text += "    group_sise: 4\n  - {name: math, kind: rll}\nevaluate: {every: 5}\n"
    text = text.replace("[{source: rows.jsonl}]", "[{source: rows.jsonl, prompt: '{'}]", 1)
    with pytest.raises(RecipeError) as caught:
        load(text)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines[:-1]] == [
        "stages.sft-1.data.0.prompt",
        "stages.sft-1.warmup_steps",
        "stages.math.init",
        "stages.math.group_sise",
        "stages.math.kind",
        "stages.math.name",
        "evaluate.every",
    ]
    assert lines[-1] == "7 problems in recipe.yaml"

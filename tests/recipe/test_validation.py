"""Every mistake in plain words, at its line, with the nearest valid key."""

from __future__ import annotations

import pytest

from cascade_rl.recipe import RecipeError
from tests.messages import mentions, says, says_each


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ("group_sise: 4", "group_sise", "unknown group_size"),
        ("temperature: 0.7", "temperature", "unknown rollout.temperature"),
        ("limit: 5", "limit", "unknown `data`"),
        ("timeout_s: 5", "timeout_s", "unknown reward.timeout_s"),
        ("max_new_token: 5", "max_new_token", "unknown max_new_tokens `rollout`"),
        ("epochs: 2", "epochs", "unknown sft"),
        ("dtype: auto", "dtype", "unknown top"),
        ("after_each_stage: []", "after_each_stage", "unknown `evaluate` top"),
        ("extend: sft-1", "extend", "unknown extends"),
        ("rollout: {group_size: 4}", "rollout.group_size", "unknown stage"),
        ("rollout: {temprature: 1}", "rollout.temprature", "unknown temperature"),
        ("rollout: {qqq: 1}", "rollout.qqq", "unknown max_new_tokens temperature top_p top_k"),
        ("qqq: 1", "qqq", "unknown"),
        ("group_size: 1", "group_size", "2 1"),
        ("group_size: two", "group_size", "whole 'two'"),
        ("group_size: 8.5", "group_size", "whole 8.5"),
        ("group_size: 1e1", "group_size", "whole 10.0 10"),
        ("group_size: true", "group_size", "whole true"),
        ("group_size: 1_000", "group_size", "'1_000' 1000"),
        ('group_size: "8"', "group_size", "'8' 8 quotes"),
        ("group_size:", "group_size", "whole nothing"),
        ("weight_decay: -1", "weight_decay", "0 -1"),
        ("weight_decay: .inf", "weight_decay", "finite"),
        ("betas: [0.9]", "betas.1", "missing number"),
        ("betas: [0.9, x]", "betas.1", "number 'x'"),
        ("betas: 0.9", "betas", "list 2 0.9"),
        ("gradient_checkpointing: no", "gradient_checkpointing", "'no' true false"),
        ("overlong: filtre", "overlong", "'filtre' filter penalise score soft"),
        ("rollout: 5", "rollout", "mapping 5 max_new_tokens temperature top_p"),
        ("rollout: {top_p: 1.5}", "rollout.top_p", "0 1 1.5"),
        ("rollout: {temperature: 0}", "rollout.temperature", "identical 0"),
        ("engine: [1]", "engine", "mapping list"),
        ("engine: {placement: dedicated, urls: [node2:8000]}", "engine.urls", "http://node2:8000 'node2:8000'"),
        ("engine: {placement: dedicated, urls: [http://a:1, http://a:1]}", "engine.urls", "twice"),
        ("engine: {urls: [http://a:1]}", "engine.urls", "dedicated`"),
        ("engine: {servers: 2}", "engine.servers", "dedicated`"),
        ("engine: {placement: dedicated, urls: [http://a:1], servers: 2}", "engine.servers", "one `urls` `servers`"),
    ],
)
def test_one_wrong_line_in_a_stage(problem, valid, line, key, words):
    says(problem(f"{valid}    {line}\n"), f"recipe.yaml:15: stages.math.{key}", *words.split())


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ("sed: 3", "sed", "unknown seed"),
        ("accelerate: x", "accelerate", "unknown launch.accelerate"),
        ("group_size: 4", "group_size", "unknown `stages`"),
        ("default: {}", "default", "unknown defaults"),
        ("template: {mode: think}", "template.mode", "'think' thinking instruct unified native"),
        ("template: thinking", "template", "mapping 'thinking' mode system"),
        ("evaluate: [aime24]", "evaluate", "mapping list"),
        ("evaluate: {after_each_stage: aime24}", "evaluate.after_each_stage", "list 'aime24' dash"),
        ("evaluate: {after_each_stage: [5]}", "evaluate.after_each_stage.0", "name mapping 5"),
        (
            "evaluate: {after_each_stage: [{use: a, sample: 3}]}",
            "evaluate.after_each_stage.0.sample",
            "unknown samples",
        ),
        ("seed: x", "seed", "whole 'x'"),
        ("description: 5", "description", "text 5 quotes"),
        ("description: [a, b]", "description", "text list 2"),
        ("tracking: {wandb: {mode: offlin}}", "tracking.wandb.mode", "'offlin' auto online offline"),
    ],
)
def test_one_wrong_line_at_the_top(problem, valid, line, key, words):
    says(problem(f"{line}\n{valid}"), f"recipe.yaml:1: {key}", *words.split())


@pytest.mark.parametrize("key", ["concurrency", "memory_limit_mib"])
@pytest.mark.parametrize("value", ["-1", "1.5", "many", "true"])
def test_the_settings_of_a_reward_are_whole_numbers(problem, valid, key, value):
    wrong = valid.replace('use: "rewards.math:verify"', f'use: "rewards.math:verify", {key}: {value}')
    assert f"reward.{key}: " in problem(wrong)


def test_a_definition_of_a_benchmark_is_judged_as_one(problems, valid):
    text = valid + "evaluate:\n  after_each_stage:\n    - aime24\n    - name: mine\n      data: []\n"
    says_each(
        problems(text),
        ("recipe.yaml:18: evaluate.after_each_stage.1.reward", "missing", "mapping", "use"),
        ("recipe.yaml:19: evaluate.after_each_stage.1.data", "list", "1", "empty"),
    )


def test_wrong_names(problems, valid):
    found = problems(valid.replace("name: math", "name: Math RL").replace("name: tiny", "name: 5"))
    says_each(
        found,
        ("recipe.yaml:1: name", "5", "64", "quotes"),
        ("recipe.yaml:9: stages.Math RL.name", "'Math RL'", "lower-case", "64"),
    )


def test_missing_keys_name_the_line_of_their_section(problems, valid):
    text = valid.replace("    learning_rate: 2e-6\n", "").replace('use: "rewards.math:verify"', "timeout_s: 3")
    says_each(
        sorted(problems(text)),
        ("recipe.yaml:12: stages.math.reward.use", "missing", "text"),
        ("recipe.yaml:9: stages.math.learning_rate", "missing", "number", "0", "1"),
    )


def test_stages_of_no_known_kind(problems, valid):
    kinds = ("sft", "reward_model", "rl", "distill")
    place = "recipe.yaml:10: stages.math.kind"
    found = problems(valid.replace("    kind: rl\n", ""))
    says_each(found, ("recipe.yaml:9: stages.math.kind", "missing", *kinds))
    says_each(problems(valid.replace("kind: rl", "kind: dpo")), (place, "'dpo'", *kinds))
    says_each(problems(valid.replace("kind: rl", "kind: sfft")), (place, "'sfft'", "sft"))
    says(problems(valid.replace("kind: rl", "kind: [rl]"))[0], place, "list", *kinds)


@pytest.mark.parametrize(
    ("stages", "place", "words"),
    [
        ("", "1: stages", "missing list"),
        ("stages:\n", "3: stages", "list nothing"),
        ("stages: []\n", "3: stages", "one skipped"),
        ("stages: {a: 1}\n", "3: stages", "list mapping"),
        ("stages: [5]\n", "3: stages.0", "mapping name kind data 5"),
        ("stages: [{}]\n", "3: stages.0.kind", "missing sft reward_model rl distill"),
    ],
)
def test_no_usable_stages(problem, stages, place, words):
    says(problem(f"name: x\nmodel: y\n{stages}"), f"recipe.yaml:{place}", *words.split())


def test_sft_wants_one_measure_of_length(problems, valid):
    found = problems(valid.replace("    steps: 10\n", "    steps: 10\n    epochs: 1\n"))
    says_each(found, ("recipe.yaml:8: stages.sft-1.steps", "one", "`epochs`", "`steps`"))


@pytest.mark.parametrize(
    ("lines", "place", "words"),
    [
        ("updates_per_batch: 2", "15: stages.math.updates_per_batch", "loss.clip_high"),
        ("modes: half\nprompts_per_step: 3", "16: stages.math.prompts_per_step", "half even 3"),
        ("mismatch:\n  mask: band\n  low: 2\n  high: 3", "17: stages.math.mismatch.low", "(2) (3)"),
        ("overlong: penalise\noverlong_buffer: 4", "16: stages.math.overlong_buffer", "soft `overlong_buffer`"),
        ("lora:\n  rank: 4\n  sync: adapter\nengine: {placement: dedicated}", "17: stages.math.lora.sync", "colocated"),
        ("overlong: soft", "15: stages.math.overlong", "soft `overlong_buffer`"),
    ],
)
def test_keys_that_do_not_go_together_are_shown_where_one_stands(problem, valid, lines, place, words):
    text = valid + "".join(f"    {line}\n" for line in lines.splitlines())
    says(problem(text), f"recipe.yaml:{place}", *words.split())


def test_two_stages_on_one_line_are_told_apart(problems):
    stage = "{{name: {}, kind: sft, data: [{{source: x}}], steps: 1}}"
    found = problems(f"name: x\nmodel: y\nstages: [{stage.format('a')}, {stage.format('b')}]\n")
    says_each(found, *((f"recipe.yaml:3: stages.{name}.learning_rate", "missing") for name in ("a", "b")))


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
    assert mentions(lines[-1], "7", "recipe.yaml")

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cascade_rl.recipe import RecipeError, load_recipe
from cascade_rl.recipe.checks import check_context, check_files, check_structure
from cascade_rl.recipe.data_checks import format_problem, pattern_problem
from cascade_rl.recipe.paths import looks_like_path, resolve_path


def texts(problems) -> list[str]:
    return [str(problem) for problem in problems]


# Names and parents


def test_two_stages_of_one_name(problems, valid):
    found = problems(valid.replace("name: math", "name: sft-1"))
    assert found == [
        "recipe.yaml:9: stages.sft-1.name: 2 stages are called sft-1 (the first: recipe.yaml:4); names must differ"
    ]


def test_model_is_no_name_for_a_stage(problems, valid):
    found = problems(valid.replace("name: math", "name: model"))
    assert found == ["recipe.yaml:9: stages.model.name: `model` means the recipe's base model; choose another name"]


@pytest.mark.parametrize(
    ("init", "result"), [("model", "model"), ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"), ("./x", "./x"), ("~", "sft-1")]
)
def test_init_may_be_the_model_a_hub_id_a_path_or_left_open(load, valid, init, result):
    loaded = load(valid.replace("kind: rl", f"kind: rl\n    init: {init}"))
    assert [stage.init for stage in loaded.recipe.stages] == ["model", result]


@pytest.mark.parametrize(
    ("stage", "init", "message"),
    [
        (
            "sft",
            "math",
            "6: stages.sft-1.init: math comes at or after sft-1; a stage starts from an earlier one",
        ),
        ("rl", "math", "11: stages.math.init: math comes at or after math; a stage starts from an earlier one"),
        ("rl", "sft-l", "11: stages.math.init: 'sft-l' is no earlier stage, nor `model`, nor a hub id or path"),
        ("rl", "sft-l", "did you mean sft-1?"),
        ("rl", "qwen", "with a slash; it may be: sft-1, model"),
    ],
)
def test_init_that_leads_nowhere(problem, valid, stage, init, message):
    assert message in problem(valid.replace(f"kind: {stage}", f"kind: {stage}\n    init: {init}"))


def test_init_from_a_skipped_stage(problems, valid):
    text = valid.replace("kind: rl", "kind: rl\n    init: sft-1").replace("kind: sft", "kind: sft\n    skip: true")
    assert problems(text) == ["recipe.yaml:12: stages.math.init: stage sft-1 is skipped, so nothing can start from it"]


def test_an_optimizer_is_inherited_from_the_same_kind_only(load, problems, valid):
    inherit = "kind: rl\n    optimizer_state: inherit"
    rule = "recipe.yaml:11: stages.math.optimizer_state: an optimizer is inherited from a stage of the same kind only; "
    assert problems(valid.replace("kind: rl", inherit)) == [rule + "stage sft-1 is of kind sft, not rl"]
    assert problems(valid.replace("kind: rl", f"{inherit}\n    init: model")) == [rule + "model has no optimizer state"]
    more = "  - {name: math-2, extends: math, optimizer_state: inherit}\n"
    assert load(valid + more).recipe.stages[2].optimizer_state == "inherit"
    adapters = "recipe.yaml:15: stages.math-2.optimizer_state: moments are those of a stage's own adapters"
    assert problems(valid + more.replace("inherit}", "inherit, lora: {rank: 4}}"))[0].startswith(adapters)
    assert problems(valid.replace("kind: rl", "kind: rl\n    lora: {rank: 4}") + more)[0].startswith(
        adapters.replace("15", "16")
    )


def test_adapters_are_served_by_colocated_engines(problems, valid):
    keys = "kind: rl\n    lora: {sync: adapter}\n    engine: {placement: dedicated}"
    assert "lora.sync: adapter is for colocated engines" in problems(valid.replace("kind: rl", keys))[0]


def test_two_benchmarks_of_one_name(problems, load, valid):
    twice = valid + "evaluate:\n  after_each_stage:\n    - aime24\n    - {use: aime24, samples: 8}\n"
    rule = "another benchmark is called aime24; give this one a `name` of its own"
    assert problems(twice) == [f"recipe.yaml:18: evaluate.after_each_stage.1: {rule}"]
    assert load(twice.replace("samples: 8", "name: aime24-8, samples: 8"))


def test_a_curriculum_sees_all_rollouts(problems, load, valid):
    hopeless = valid.replace("kind: rl", "kind: rl\n    abort_hopeless: true")
    assert load(hopeless)
    (found,) = problems(hopeless + "    curriculum: {}\n")
    assert found.startswith("recipe.yaml:11: stages.math.abort_hopeless: a curriculum judges prompts by all")


# Steps and batches


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("min_learning_rate: 1e-2", "min_learning_rate: 0.01 is above learning_rate 0.001"),
        ("warmup_steps: 10", "warmup_steps: 10 warm-up steps leave nothing of 10 steps"),
        ("micro_batch_size: 3", "micro_batch_size: 3 does not divide batch_size 256"),
    ],
)
def test_steps_that_contradict_each_other(problems, valid, line, message):
    found = problems(valid.replace("    steps: 10\n", f"    steps: 10\n    {line}\n"))
    assert found == [f"recipe.yaml:9: stages.sft-1.{message}"]


def test_warm_up_is_not_compared_where_the_number_of_steps_is_open(load, valid):
    assert load(valid.replace("steps: 10", "epochs: 1\n    warmup_steps: 99"))


def test_batches_divide_over_the_ranks(load, valid):
    loaded = load(
        valid.replace("steps: 10", "steps: 10\n    batch_size: 32\n    micro_batch_size: 4")
        + "    prompts_per_step: 10\n"
    )
    assert check_structure(loaded, None) == check_structure(loaded, 1) == check_structure(loaded, 2) == []
    assert texts(check_structure(loaded, 4)) == [
        "recipe.yaml:17: stages.math.prompts_per_step: 10 does not divide over 4 ranks; use 8 or 12"
    ]
    assert texts(check_structure(loaded, 16)) == [
        "recipe.yaml:10: stages.sft-1.micro_batch_size: 4 does not divide the 2 rows of each of 16 ranks",
        "recipe.yaml:17: stages.math.prompts_per_step: 10 does not divide over 16 ranks; use 16",
    ]
    assert texts(check_structure(loaded, 3)) == [
        "recipe.yaml:9: stages.sft-1.batch_size: 32 does not divide over 3 ranks; use 30 or 33",
        "recipe.yaml:17: stages.math.prompts_per_step: 10 does not divide over 3 ranks; use 9 or 12",
    ]


def test_a_default_batch_that_does_not_divide_is_placed_at_its_stage(load, valid):
    assert texts(check_structure(load(valid), 3))[0] == (
        "recipe.yaml:4: stages.sft-1.batch_size: 256 does not divide over 3 ranks; use 255 or 258"
    )


def test_context(load, valid):
    text = valid.replace("steps: 10", "steps: 10\n    max_length: 1000")
    loaded = load(text + "    max_prompt_tokens: 100\n    rollout: {max_new_tokens: 900}\n")
    assert check_context(loaded, 1000) == []
    first, second = texts(check_context(loaded, 999))
    lower = "the model has 999 (RoPE scaling included): lower it, or give the model more"
    assert first.startswith(f"recipe.yaml:9: stages.sft-1.max_length: needs 1000 positions, {lower}")
    assert second.startswith(
        "recipe.yaml:17: stages.math.rollout.max_new_tokens: needs max_prompt_tokens 100 + max_new_tokens 900 "
        f"= 1000 positions, {lower}"
    )
    assert len(check_context(load(text), 1023)) == 1  # the default of max_new_tokens is 1024


# Data


def test_an_empty_format_string():
    assert "is empty" in format_problem(" ")


@pytest.mark.parametrize("text", ["{question}", "a {{}} {q.x} {q[0]} {q!r} {q:>5} {q:{width}}", r"\boxed{{}} {q}"])
def test_format_strings_that_are_fine(text):
    assert format_problem(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no format string"),
        ("}", "is no format string"),
        ("{question", "is no format string"),
        (r"\boxed{} {q}", "has an empty {}, which names no column"),
        ("{0}", "has {0}, which names no column"),
        ("{0.x}", "has {0.x}, which names no column"),
        ("{.x}", "has {.x}, which names no column"),
        ("{q:{}}", "has an empty {}, which names no column"),
        ("{q!z}", "has {q!z}, an unknown conversion"),
    ],
)
def test_format_strings_that_are_not(text, words):
    assert words in format_problem(text)
    assert "written twice" in format_problem(text)


def test_patterns():
    assert pattern_problem(r"####\s*(.*)$") is None
    assert pattern_problem(r"####\s*.*$") == "needs a group (...) around the part that is kept"
    assert pattern_problem(r"(a").startswith("is no regular expression: missing ), unterminated subpattern")
    assert pattern_problem(r"(a){99999999999}").startswith("is no regular expression")


def test_wrong_data_of_stages_and_benchmarks_is_placed(problems, valid):
    text = valid.replace("data: [{source: rows.jsonl}]", "data: [{source: rows.jsonl, extract: {answer: x}}]", 1)
    text += (
        "evaluate:\n  after_each_stage:\n    - name: b\n      reward: {use: 'a:b'}\n"
        "      data:\n        - source: x\n          prompt: '{}'\n"
    )
    found = problems(text)
    assert [line.split(": ")[:2] for line in found] == [
        ["recipe.yaml:6", "stages.sft-1.data.0.extract.answer"],
        ["recipe.yaml:21", "evaluate.after_each_stage.0.data.0.prompt"],
    ]


def test_files_are_looked_for_beside_the_recipe_then_here(folder):
    Path("recipes/data").mkdir(parents=True)
    Path("data").mkdir()
    for path in ("recipes/data/a.jsonl", "data/a.jsonl", "data/b.jsonl"):
        Path(path).touch()
    recipe = Path("recipes/x.yaml")
    assert resolve_path("data/a.jsonl", recipe) == folder / "recipes/data/a.jsonl"
    assert resolve_path("data/b.jsonl", recipe) == folder / "data/b.jsonl"
    assert resolve_path("data", recipe) == folder / "recipes/data"
    assert resolve_path(str(folder / "data/b.jsonl"), recipe) == folder / "data/b.jsonl"
    for absent in ("data/c.jsonl", "openai/gsm8k", "a\0b", "x" * 5000, "", "~nobody-here/x"):
        assert resolve_path(absent, recipe) is None


def test_what_can_only_be_a_path():
    assert all(map(looks_like_path, ["./a", "../a", "/a", "~/a", "a.json", "b/a.jsonl", "a.parquet"]))
    assert not any(map(looks_like_path, ["openai/gsm8k", "package.module:rows", "rows"]))


def test_missing_data_files(load, valid):
    text = valid.replace("rows.jsonl", "./none", 1).replace("rows.jsonl", "openai/gsm8k")
    text += "evaluate: {after_each_stage: [{use: aime24, source: a.parquet}]}\n"
    words = "beside the recipe or in the working folder"
    assert texts(check_files(load(text))) == [
        f"recipe.yaml:6: stages.sft-1.data.0.source: there is no file ./none {words}",
        f"recipe.yaml:15: evaluate.after_each_stage.0.source: there is no file a.parquet {words}",
    ]
    Path("none").mkdir()
    Path("a.parquet").touch()
    assert check_files(load(text)) == []


def test_the_parent_of_an_invalid_stage_is_checked_too(problems, valid):
    text = valid.replace("kind: rl", "kind: rl\n    init: sft-l").replace("steps: 20", "steps: x")
    assert [line.split(": ")[1] for line in problems(text)] == ["stages.math.init", "stages.math.steps"]


def test_valid_stages_are_checked_beside_invalid_ones(load, valid):
    with pytest.raises(RecipeError) as caught:
        load(valid.replace("steps: 10", "steps: 10\n    warmup_steps: 10").replace("steps: 20", "steps: x"))
    assert [problem.key for problem in caught.value.problems] == ["stages.sft-1.warmup_steps", "stages.math.steps"]


# --- Side branches ---------------------------------------------------------------------------------------------------

CHAIN = """\
name: chain
model: tiny-qwen3
stages:
  - {name: sft, kind: sft, data: [{source: rows.jsonl}], learning_rate: 1e-3, steps: 2}
  - {name: rm, kind: reward_model, data: [{source: rows.jsonl}], learning_rate: 1e-3, steps: 2}
  - name: rlhf
    kind: rl
    data: [{source: rows.jsonl}]
    reward: {use: "rewards.preference:PreferenceReward", model: "stage:rm"}
    learning_rate: 1e-6
    steps: 2
"""


def chain(tmp_path, *changes):
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "chain.yaml").write_text(CHAIN)
    return load_recipe(tmp_path / "chain.yaml", changes)


def test_the_stage_after_a_reward_model_does_not_start_from_it(tmp_path):
    assert [stage.init for stage in chain(tmp_path).recipe.stages] == ["model", "sft", "sft"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stages.rlhf.init=rm", "rm is a reward model, which no rl stage can start from"),
        ("stages.rlhf.reward.model=stage:sft", "must name a reward model, but sft is of kind sft; did you mean|reward models"),
        ("stages.rlhf.reward.model=stage:r", "'stage:r' must name a reward model, but r is no earlier stage; did you mean rm"),
        ("stages.rlhf.exclude=[{stage: stf}]", "there is no other stage 'stf'; did you mean sft"),
        ("stages.rlhf.exclude=[{stage: sft, where: {a: [b]}}]", "exactly one of `stage`, `data` and `where`"),
        ("stages.rlhf.exclude=[{where: {a: [b]}, ngram: 9}]", "`ngram` goes with"),
        ("stages.rlhf.rewards={a: {use: 'x:y'}}", "exactly one of `reward` and `rewards`"),
        ("stages.rlhf.data=[{source: rows.jsonl, weight: 1.0}, {source: rows.jsonl}]", "has a `weight`, or none"),
        ("stages.rm.epochs=1", "exactly one of `epochs` and `steps`"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant(tmp_path, change, message):
    with pytest.raises(RecipeError, match=message):
        chain(tmp_path, change)


def test_a_prompt_that_names_no_column_is_refused(problem, valid):
    found = problem(
        valid.replace("{source: rows.jsonl}]\n    reward", '{source: rows.jsonl, prompt: "Add them."}]\n    reward')
    )
    assert "stages.math.data.0.prompt: " in found
    assert "column" in found


@pytest.mark.parametrize("source", ['""', '"  "'])
def test_an_empty_source_is_refused(problem, valid, source):
    found = problem(valid.replace("source: rows.jsonl", f"source: {source}", 1))
    assert "stages.sft-1.data.0.source: " in found


def test_an_empty_model_is_refused(problem, valid):
    assert problem(valid.replace("model: tiny-qwen3", 'model: ""')).startswith("recipe.yaml:2: model: ")


@pytest.mark.parametrize(
    ("keys", "need", "key"),
    [
        ({"instruct_max_new_tokens": 900}, 1000, "instruct_max_new_tokens"),  # longer than the default 300, and 100
        ({"instruct_max_new_tokens": 200}, 400, "rollout.max_new_tokens"),
        ({"instruct_max_new_tokens": 900, "modes": "half"}, 1000, "instruct_max_new_tokens"),
        ({"instruct_max_new_tokens": 900, "modes": "thinking"}, 400, "rollout.max_new_tokens"),  # nobody may use it
        ({"instruct_max_new_tokens": 200, "modes": "instruct"}, 300, "instruct_max_new_tokens"),
        ({"modes": "instruct"}, 400, "rollout.max_new_tokens"),
    ],
)
def test_the_longest_rollout_of_any_mode_must_fit(load, keys, need, key):
    stage = {
        "name": "rl", "kind": "rl", "data": [{"source": "a:b"}], "reward": {"use": "a:b"}, "learning_rate": 1e-6,
        "steps": 1, "max_prompt_tokens": 100, "rollout": {"max_new_tokens": 300}, **keys,
    }  # fmt: skip
    loaded = load(json.dumps({"name": "r", "model": "tiny-qwen3", "stages": [stage]}))
    assert loaded.recipe.stages[0].longest_completion == need - 100
    assert check_context(loaded, need) == []
    (problem,) = check_context(loaded, need - 1)
    assert f"stages.rl.{key}:" in str(problem)
    assert f" {need} " in str(problem)

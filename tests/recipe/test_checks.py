from __future__ import annotations

import json
from pathlib import Path

import pytest

from cascade_rl.recipe import RecipeError, load_recipe
from cascade_rl.recipe.checks import check_context, check_files, check_structure
from cascade_rl.recipe.data_checks import format_problem, pattern_problem
from cascade_rl.recipe.paths import is_generator, is_hub_id, looks_like_path, resolve_path
from tests.messages import mentions, says, says_each


def texts(problems) -> list[str]:
    return [str(problem) for problem in problems]


# Names and parents


def test_two_stages_of_one_name(problems, valid):
    found = problems(valid.replace("name: math", "name: sft-1"))
    says_each(found, ("recipe.yaml:9: stages.sft-1.name", "2", "sft-1", "recipe.yaml:4"))


def test_model_is_no_name_for_a_stage(problems, valid):
    found = problems(valid.replace("name: math", "name: model"))
    says_each(found, ("recipe.yaml:9: stages.model.name", "`model`", "base"))


@pytest.mark.parametrize(
    ("init", "result"), [("model", "model"), ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"), ("./x", "./x"), ("~", "sft-1")]
)
def test_init_may_be_the_model_a_hub_id_a_path_or_left_open(load, valid, init, result):
    loaded = load(valid.replace("kind: rl", f"kind: rl\n    init: {init}"))
    assert [stage.init for stage in loaded.recipe.stages] == ["model", result]


@pytest.mark.parametrize(
    ("stage", "init", "place", "words"),
    [
        ("sft", "math", "6: stages.sft-1.init", "math after sft-1"),
        ("rl", "math", "11: stages.math.init", "math after"),
        ("rl", "sft-l", "11: stages.math.init", "'sft-l' hub sft-1"),
        ("rl", "qwen", "11: stages.math.init", "'qwen' slash sft-1 model"),
    ],
)
def test_init_that_leads_nowhere(problem, valid, stage, init, place, words):
    found = problem(valid.replace(f"kind: {stage}", f"kind: {stage}\n    init: {init}"))
    says(found, f"recipe.yaml:{place}", *words.split())


def test_init_from_a_skipped_stage(problems, valid):
    text = valid.replace("kind: rl", "kind: rl\n    init: sft-1").replace("kind: sft", "kind: sft\n    skip: true")
    says_each(problems(text), ("recipe.yaml:12: stages.math.init", "sft-1", "skipped"))


def test_an_optimizer_is_inherited_from_the_same_kind_only(load, problems, valid):
    inherit = "kind: rl\n    optimizer_state: inherit"
    place = "recipe.yaml:11: stages.math.optimizer_state"
    says_each(problems(valid.replace("kind: rl", inherit)), (place, "kind", "sft-1", "sft", "rl"))
    says_each(problems(valid.replace("kind: rl", f"{inherit}\n    init: model")), (place, "kind", "model"))
    more = "  - {name: math-2, extends: math, optimizer_state: inherit}\n"
    assert load(valid + more).recipe.stages[2].optimizer_state == "inherit"
    with_adapters = problems(valid + more.replace("inherit}", "inherit, lora: {rank: 4}}"))
    says(with_adapters[0], "recipe.yaml:15: stages.math-2.optimizer_state", "adapters", "`fresh`")
    after_adapters = problems(valid.replace("kind: rl", "kind: rl\n    lora: {rank: 4}") + more)
    says(after_adapters[0], "recipe.yaml:16: stages.math-2.optimizer_state", "adapters", "`fresh`")


def test_adapters_are_served_by_colocated_engines(problems, valid):
    keys = "kind: rl\n    lora: {sync: adapter}\n    engine: {placement: dedicated}"
    says(problems(valid.replace("kind: rl", keys))[0], "recipe.yaml:11: stages.math.lora.sync", "adapter", "colocated")


def test_two_benchmarks_of_one_name(problems, load, valid):
    twice = valid + "evaluate:\n  after_each_stage:\n    - aime24\n    - {use: aime24, samples: 8}\n"
    says_each(problems(twice), ("recipe.yaml:18: evaluate.after_each_stage.1", "another", "aime24", "`name`"))
    assert load(twice.replace("samples: 8", "name: aime24-8, samples: 8"))


def test_a_curriculum_sees_all_rollouts(problems, load, valid):
    hopeless = valid.replace("kind: rl", "kind: rl\n    abort_hopeless: true")
    assert load(hopeless)
    (found,) = problems(hopeless + "    curriculum: {}\n")
    says(found, "recipe.yaml:11: stages.math.abort_hopeless", "`curriculum`")


# Steps and batches


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("min_learning_rate: 1e-2", "0.01 above learning_rate 0.001"),
        ("warmup_steps: 10", "10 nothing"),
        ("micro_batch_size: 3", "3 divide batch_size 256"),
    ],
)
def test_steps_that_contradict_each_other(problems, valid, line, words):
    found = problems(valid.replace("    steps: 10\n", f"    steps: 10\n    {line}\n"))
    says_each(found, (f"recipe.yaml:9: stages.sft-1.{line.split(':')[0]}", *words.split()))


def test_warm_up_is_not_compared_where_the_number_of_steps_is_open(load, valid):
    assert load(valid.replace("steps: 10", "epochs: 1\n    warmup_steps: 99"))


def test_batches_divide_over_the_ranks(load, valid):
    loaded = load(
        valid.replace("steps: 10", "steps: 10\n    batch_size: 32\n    micro_batch_size: 4")
        + "    prompts_per_step: 10\n"
    )
    assert check_structure(loaded, None) == check_structure(loaded, 1) == check_structure(loaded, 2) == []
    batch, micro_batch = "recipe.yaml:9: stages.sft-1.batch_size", "recipe.yaml:10: stages.sft-1.micro_batch_size"
    prompts = "recipe.yaml:17: stages.math.prompts_per_step"
    says_each(texts(check_structure(loaded, 4)), (prompts, "10", "4", "8", "12"))
    says_each(texts(check_structure(loaded, 16)), (micro_batch, "4", "2", "16"), (prompts, "10", "16"))
    says_each(texts(check_structure(loaded, 3)), (batch, "32", "3", "30", "33"), (prompts, "10", "3", "9", "12"))


def test_a_default_batch_that_does_not_divide_is_placed_at_its_stage(load, valid):
    found = texts(check_structure(load(valid), 3))
    says(found[0], "recipe.yaml:4: stages.sft-1.batch_size", "256", "3", "255", "258")


def test_context(load, valid):
    text = valid.replace("steps: 10", "steps: 10\n    max_length: 1000")
    loaded = load(text + "    max_prompt_tokens: 100\n    rollout: {max_new_tokens: 900}\n")
    assert check_context(loaded, 1000) == []
    first, second = texts(check_context(loaded, 999))
    says(first, "recipe.yaml:9: stages.sft-1.max_length", "1000", "999")
    sum_of = ("max_prompt_tokens 100", "max_new_tokens 900", "1000", "999")
    says(second, "recipe.yaml:17: stages.math.rollout.max_new_tokens", *sum_of)
    assert len(check_context(load(text), 1023)) == 1  # the default of max_new_tokens is 1024


# Data


def test_an_empty_format_string():
    assert mentions(format_problem(" "), "empty")


@pytest.mark.parametrize("text", ["{question}", "a {{}} {q.x} {q[0]} {q!r} {q:>5}", r"\boxed{{}} {q}"])
def test_format_strings_that_are_fine(text):
    assert format_problem(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "format"),
        ("}", "format"),
        ("{question", "format"),
        (r"\boxed{} {q}", "{} column"),
        ("{0}", "{0} column"),
        ("{0.x}", "{0.x} column"),
        ("{.x}", "{.x} column"),
        ("{q:{}}", "{} column"),
        ("{q!z}", "{q!z} conversion"),
    ],
)
def test_format_strings_that_are_not(text, words):
    assert mentions(format_problem(text), *words.split())
    assert mentions(format_problem(text), r"\boxed{{}}")  # how braces of the text itself are written


def test_patterns():
    assert pattern_problem(r"####\s*(.*)$") is None
    assert mentions(pattern_problem(r"####\s*.*$"), "group", "(...)")
    assert "missing ), unterminated subpattern" in pattern_problem(r"(a")  # what Python says
    assert mentions(pattern_problem(r"(a){99999999999}"), "regular")


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
    says_each(
        texts(check_files(load(text))),
        ("recipe.yaml:6: stages.sft-1.data.0.source", "file", "./none"),
        ("recipe.yaml:15: evaluate.after_each_stage.0.source", "file", "a.parquet"),
    )
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
    ("change", "key", "words"),
    [
        ("stages.rlhf.init=rm", "rlhf.init", "rm reward"),
        ("stages.rlhf.reward.model=stage:sft", "rlhf.reward", "sft kind rm"),
        ("stages.rlhf.reward.model=stage:r", "rlhf.reward", "'stage:r' earlier rm"),
        ("stages.rlhf.exclude=[{stage: stf}]", "rlhf.exclude", "'stf' sft"),
        ("stages.rlhf.exclude=[{stage: sft, where: {a: [b]}}]", "rlhf.exclude.0", "one `stage` `data` `where`"),
        ("stages.rlhf.exclude=[{where: {a: [b]}, ngram: 9}]", "rlhf.exclude.0.ngram", "`ngram` `stage`"),
        ("stages.rlhf.rewards={a: {use: 'x:y'}}", "rlhf.rewards", "one `reward` `rewards`"),
        ("stages.rlhf.data=[{source: rows.jsonl, weight: 1.0}, {source: rows.jsonl}]", "rlhf.data", "`weight` none"),
        ("stages.rm.epochs=1", "rm.steps", "one `epochs` `steps`"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant(tmp_path, change, key, words):
    with pytest.raises(RecipeError) as caught:
        chain(tmp_path, change)
    problem = caught.value.problems[0]
    says(f"{problem.key}: {problem.message}", f"stages.{key}", *words.split())


def test_a_prompt_that_names_no_column_is_refused(problem, valid):
    found = problem(
        valid.replace("{source: rows.jsonl}]\n    reward", '{source: rows.jsonl, prompt: "Add them."}]\n    reward')
    )
    says(found, "recipe.yaml:11: stages.math.data.0.prompt", "column")


@pytest.mark.parametrize("source", ['""', '"  "'])
def test_an_empty_source_is_refused(problem, valid, source):
    found = problem(valid.replace("source: rows.jsonl", f"source: {source}", 1))
    says(found, "recipe.yaml:6: stages.sft-1.data.0.source", "empty")


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


# --- Format specs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["{q:>10000}", "{q:010000}", "{w:.10000f}", "{q:,.2f}", "{q!r:^20}", "{q[99999]}"])
def test_format_specs_of_ordinary_size_are_fine(text):
    assert format_problem(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "{q:>10001}",
        "{q:999999999}",
        "{w:.999999999f}",
        "{q:9>999999999}",
        "{q:" + "9" * 50 + "}",
        "{q:>\u0661\u0660\u0660\u0660\u0660\u0660}",
    ],
)
def test_a_huge_number_in_a_format_spec_is_refused(text):
    assert mentions(format_problem(text), "10000")


def test_a_number_too_long_to_read_is_refused():
    assert mentions(format_problem("{q:" + "9" * 5000 + "}"), "format")


@pytest.mark.parametrize("text", ["{q:{width}}", "{q:>{width}}", "{q:.{digits}f}", "{q:{w!r}}", "{q:{a:{b}}}"])
def test_a_row_cannot_set_the_width_of_its_prompt(text):
    assert mentions(format_problem(text), "width")


# --- Sources and models that can exist -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["openai/gsm8k", "gpt2", "Qwen/Qwen3-8B-Base", "a_b/c.d-e", "my.org/data", "x"])
def test_hub_ids(text):
    assert is_hub_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a/b/c",
        "a/",
        "/a",
        "a//b",
        "foo bar",
        "gen:",
        "owner/name:x",
        "rows.jsonl/x",
        " a/b",
        "a/b\n",
        "é",
        "-a",
        "a/..",
    ],
)
def test_what_is_no_hub_id(text):
    assert not is_hub_id(text)


@pytest.mark.parametrize("text", ["gen:", ":plain", ".pkg:rows", "a..b:rows", "a:b:c", "a.b", "a-b:c"])
def test_what_is_no_generator(text):
    assert not is_generator(text)


@pytest.mark.parametrize("source", ["gen:", ":plain", "foo bar", "a/b/c", "owner/name:x", "rows.jsonl/x", ".g:rows"])
def test_a_source_that_can_be_nothing_is_refused(load, valid, source):
    text = valid.replace("source: rows.jsonl", f"source: '{source}'", 1).replace("source: rows.jsonl", "source: a/b")
    (found,) = texts(check_files(load(text)))
    says(found, "recipe.yaml:6: stages.sft-1.data.0.source", f"'{source}'", "hub", "package.module:function")


def test_a_benchmark_is_read_from_a_file_or_the_hub(load, valid):
    text = valid.replace("rows.jsonl", "a/b") + "evaluate: {after_each_stage: [{use: aime24, source: 'm:rows'}]}\n"
    (found,) = texts(check_files(load(text)))
    says(found, "recipe.yaml:15: evaluate.after_each_stage.0.source", "'m:rows'", "hub")


def test_a_model_that_can_be_nothing_is_refused(load, valid):
    text = valid.replace("rows.jsonl", "a/b").replace("kind: rl", "kind: rl\n    init: 'a/'")
    loaded = load(text.replace("tiny-qwen3", "a/b/c"))
    says_each(
        texts(check_files(loaded)), ("recipe.yaml:2: model", "'a/b/c'"), ("recipe.yaml:11: stages.math.init", "'a/'")
    )
    Path("a/b/c").mkdir(parents=True)
    assert check_files(loaded) == []


@pytest.mark.parametrize("key", ["split", "revision", "config", "domain"])
def test_an_empty_text_of_a_source_is_refused(problem, valid, key):
    found = problem(valid.replace("source: rows.jsonl", f"source: rows.jsonl, {key}: ' '", 1))
    says(found, f"recipe.yaml:6: stages.sft-1.data.0.{key}", "empty")


def test_an_empty_source_of_a_benchmark_is_refused(problem, valid):
    found = problem(valid + "evaluate: {after_each_stage: [{use: aime24, source: ''}]}\n")
    says(found, "recipe.yaml:15: evaluate.after_each_stage.0.source", "empty")


def test_an_optimizer_is_inherited_from_the_same_trainer_only(load, problems, valid):
    own = "  - {name: sft-2, extends: sft-1, init: sft-1, optimizer_state: inherit"
    assert load(valid + own + "}\n").recipe.stages[2].optimizer_state == "inherit"
    found = [line for line in problems(valid + own + ", trainer: trl}\n") if "optimizer_state" in line]
    says(found[0], "recipe.yaml:15: stages.sft-2.optimizer_state", "sft-1", "trainer")

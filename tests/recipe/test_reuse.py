"""base, extends, skip, defaults and --set, through load_recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade_rl.recipe import RecipeError, SourceLine, load_recipe
from tests.messages import mentions, says, says_each

SECOND = """\
  - name: math-2
    extends: math
    rollout: {max_new_tokens: 2048}
    steps: 30
"""


def names(loaded) -> list[str]:
    return [stage.name for stage in loaded.recipe.stages]


# base


def test_a_child_edits_its_base(load, valid):
    child = "base: base.yaml\nname: child\nstages:\n  - name: math\n    steps: 5\n"
    loaded = load(child, base=valid)
    assert loaded.recipe.name == "child"
    assert loaded.recipe.model == "tiny-qwen3"
    assert names(loaded) == ["sft-1", "math"]
    assert loaded.recipe.stages[1].steps == 5
    assert loaded.recipe.stages[1].learning_rate == 2e-6
    assert loaded.files == (Path("recipe.yaml"), Path("base.yaml"))
    assert loaded.place("stages", "math", "steps") == SourceLine("recipe.yaml", 5)
    assert loaded.place("stages", "math", "learning_rate") == SourceLine("base.yaml", 13)


def test_bases_are_found_beside_the_file_that_names_them(folder, valid):
    Path("a/b").mkdir(parents=True)
    Path("a/b/bottom.yaml").write_text(valid)
    Path("a/middle.yaml").write_text("base: b/bottom.yaml\nname: middle\nseed: 7\n")
    Path("top.yaml").write_text("base: a/middle.yaml\nname: top\n")
    loaded = load_recipe("top.yaml")
    assert (loaded.recipe.name, loaded.recipe.seed) == ("top", 7)
    assert loaded.files == (Path("top.yaml"), Path("a/middle.yaml"), Path("a/b/bottom.yaml"))


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("missing.yaml", ["file", "missing.yaml", "recipe.yaml"]),
        ("[a, b]", ["path", "text"]),
        ("recipe.yaml", ["circle", "recipe.yaml -> recipe.yaml"]),
    ],
)
def test_bases_that_cannot_be_followed(problems, base, words):
    says_each(problems(f"base: {base}\n"), ("recipe.yaml:1: base", *words))


def test_a_circle_of_bases_names_the_chain(problems):
    found = problems("base: a.yaml\n", a="base: b.yaml\n", b="base: ./a.yaml\n")
    says_each(found, ("b.yaml:1: base", "circle", "a.yaml -> b.yaml -> a.yaml"))


def test_a_mistake_in_a_base_is_placed_there(problems, valid):
    found = problems("base: base.yaml\n", base=valid.replace("steps: 20", "stepps: 20"))
    says_each(
        found,
        ("base.yaml:9: stages.math.steps", "missing", "number", "1"),
        ("base.yaml:14: stages.math.stepps", "unknown", "steps"),
    )


# extends


def test_a_stage_takes_everything_but_name_and_init_from_the_one_it_extends(load, valid):
    text = valid.replace("    steps: 20\n", "    steps: 20\n    init: model\n    rollout: {temperature: 0.7}\n")
    loaded = load(text + SECOND)
    second = loaded.recipe.stages[2]
    assert (second.name, second.init, second.steps, second.learning_rate) == ("math-2", "math", 30, 2e-6)
    assert (second.rollout.temperature, second.rollout.max_new_tokens) == (0.7, 2048)
    assert loaded.recipe.stages[1].rollout.max_new_tokens == 1024
    assert loaded.place("stages", "math-2", "learning_rate").line == 13


def test_a_stage_may_extend_a_later_one_that_extends_another(load, valid):
    first = "stages:\n  - {name: warm, extends: math-2, steps: 3}\n"
    loaded = load(valid.replace("stages:\n", first) + SECOND)
    warm = loaded.recipe.stages[0]
    assert (warm.kind, warm.steps, warm.rollout.max_new_tokens, warm.init) == ("rl", 3, 2048, "model")


def test_an_unknown_stage_to_extend_is_one_problem_and_not_ten(problems, valid):
    found = problems(valid + SECOND.replace("extends: math", "extends: maths"))
    says_each(found, ("recipe.yaml:16: stages.math-2.extends", "'maths'", "math"))


def test_a_circle_of_stages_is_named(problems, valid):
    text = valid.replace("    kind: rl\n", "    extends: math-2\n    kind: rl\n") + SECOND
    found = problems(text)
    says_each(found, ("recipe.yaml:17: stages.math-2.extends", "circle", "math -> math-2 -> math"))


def test_a_mistake_that_three_stages_inherit_is_told_once(problems, valid):
    text = valid.replace("steps: 20", "steps: 20\n    group_sise: 4")
    more = SECOND + "  - {name: math-3, extends: math-2}\n"
    says_each(problems(text + more), ("recipe.yaml:15: stages.math.group_sise", "unknown", "group_size"))


# skip


def test_skipped_stages_are_left_out_but_can_be_extended(load, valid):
    loaded = load(valid.replace("kind: rl", "kind: rl\n    skip: true") + SECOND)
    assert names(loaded) == ["sft-1", "math-2"]
    assert loaded.skipped == ("math",)
    assert loaded.recipe.stages[1].init == "sft-1"


def test_a_child_skips_a_stage_of_its_base_and_another_brings_it_back(load, valid):
    child = "base: base.yaml\nstages: [{name: sft-1, skip: true}]\n"
    assert names(load(child, base=valid)) == ["math"]
    assert names(load(child, "stages.sft-1.skip=false", base=valid)) == ["sft-1", "math"]
    assert names(load(valid, "stages.math.skip=true")) == ["sft-1"]


def test_skip_wants_a_truth_value(problems, valid):
    found = problems(valid.replace("kind: rl", "kind: rl\n    skip: yes"))
    says_each(found, ("recipe.yaml:11: stages.math.skip", "true", "false", "'yes'"))


# defaults


def test_defaults_lie_under_the_stages_of_their_kind(load, valid):
    text = "defaults:\n  rl: {group_size: 4, steps: 1, rollout: {top_p: 0.9, temperature: 0.5}}\n" + valid
    loaded = load(text.replace("steps: 20", "steps: 20\n    rollout: {temperature: 0.8}"))
    math = loaded.recipe.stages[1]
    assert (math.group_size, math.steps, math.rollout.top_p, math.rollout.temperature) == (4, 20, 0.9, 0.8)
    assert loaded.place("stages", "math", "group_size") == SourceLine("recipe.yaml", 2)


@pytest.mark.parametrize(
    ("defaults", "key", "words"),
    [
        ("{rll: {steps: 1}}", "defaults.rll", "kind 'rll' rl"),
        ("{dpo: {}}", "defaults.dpo", "kind 'dpo' sft reward_model rl distill"),
        ("{rl: 5}", "defaults.rl", "mapping 5"),
        ("[rl]", "defaults", "mapping sft reward_model rl distill"),
        ("{rl: {group_sise: 4}}", "defaults.rl.group_sise", "unknown group_size"),
        ("{rl: {group_size: 1}}", "defaults.rl.group_size", "2 1"),
        ("{rl: {batch_size: 4}}", "defaults.rl.batch_size", "unknown sft"),
    ],
)
def test_wrong_defaults_are_told_once_and_where_they_stand(problem, valid, defaults, key, words):
    says(problem(f"defaults: {defaults}\n{valid}" + SECOND), f"recipe.yaml:1: {key}", *words.split())


# --set


def test_overrides_come_last(load, valid):
    text = "defaults: {rl: {group_size: 4}}\n" + valid + SECOND
    loaded = load(
        text,
        "seed=7",
        "stages.math.steps=5",
        "stages.0.steps=6",
        "stages.math.rollout.temperature=0.5",
        "stages.sft-1.data.0.limit=3",
        "defaults.rl.group_size=16",
        "evaluate.after_each_stage=[aime24]",
        "description=a = b",
    )
    sft, math, second = loaded.recipe.stages
    assert (loaded.recipe.seed, math.steps, sft.steps, math.rollout.temperature) == (7, 5, 6, 0.5)
    assert (sft.data[0].limit, math.group_size, loaded.recipe.description) == (3, 16, "a = b")
    assert loaded.recipe.evaluate.after_each_stage == ["aime24"]
    assert second.steps == 30
    assert second.rollout.temperature == 0.5  # it extends math
    assert loaded.place("stages", "math", "steps") == SourceLine("--set", None)
    assert loaded.place("stages", "math", "rollout", "temperature") == SourceLine("--set", None)
    assert loaded.place("stages", "math", "learning_rate") == SourceLine("recipe.yaml", 14)


def test_an_override_of_inherited_data_leaves_the_other_stage_alone(load, valid):
    loaded = load(valid + SECOND, "stages.math-2.data.0.limit=5")
    assert [stage.data[0].limit for stage in loaded.recipe.stages] == [None, None, 5]


def test_a_stage_name_may_hold_dots(load, valid):
    text = valid.replace("name: math", "name: math-1.5b.long")
    assert load(text, "stages.math-1.5b.long.steps=3").recipe.stages[1].steps == 3


@pytest.mark.parametrize(
    ("override", "key", "words"),
    [
        ("seed", "seed", "like --set"),
        ("=5", "", "like --set"),
        ("stages..steps=5", "stages..steps", "like --set"),
        ("stages.mth.steps=5", "stages.mth.steps", "'mth' math"),
        ("stages.zzz.steps=5", "stages.zzz.steps", "'zzz' sft-1 math"),
        ("stages.2.steps=5", "stages.2.steps", "'2' sft-1 math"),
        ("stages.math.data.1.limit=5", "stages.math.data.1.limit", "list `stages.1.data` 0 '1'"),
        ("stages.math.data.x=5", "stages.math.data.x", "list `stages.1.data` 0 'x'"),
        ("seed.x=5", "seed.x", "value `seed` (3) `x`"),
        ("base=x.yaml", "base", "`base` file"),
        ("stages.math.steps={", "stages.math.steps", "YAML"),
        ("stages.math.step=5", "stages.math.step", "unknown steps"),
        ("stages.math.steps=ten", "stages.math.steps", "number 'ten'"),
        ("stages.math.reward.use=5", "stages.math.reward.use", "text 5 quotes"),
    ],
)
def test_wrong_overrides(problem, valid, override, key, words):
    place = f"--set: {key}" if key else "--set"
    says(problem("seed: 3\n" + valid, override), place, *words.split())


def test_wrong_overrides_and_wrong_keys_come_in_one_message(load, valid):
    with pytest.raises(RecipeError) as caught:
        load(valid.replace("model:", "modell:"), "stages.mth.steps=5")
    *found, last = str(caught.value).splitlines()
    says_each(
        found,
        ("--set: stages.mth.steps", "'mth'", "math"),
        ("recipe.yaml:1: model", "missing", "text"),
        ("recipe.yaml:2: modell", "unknown", "model"),
    )
    assert mentions(last, "3", "recipe.yaml")


# entries of a derived recipe that change a stage which the base does not have


@pytest.mark.parametrize(
    "entry",
    ["{name: maht, steps: 3}", "{name: maht, skip: true}", "{name: maht, skip: true, nonsense: 1}", "{name: maht}"],
)
def test_a_misspelt_stage_of_the_base_is_named_with_the_nearest(problem, valid, entry):
    found = problem(f"base: base.yaml\nstages:\n  - {{name: sft-1, steps: 5}}\n  - {entry}\n", base=valid)
    says(found, "recipe.yaml:4: stages.1", "'maht'", "math")  # its number in its own file, not in the merged list


@pytest.mark.parametrize("entry", ["math", "{nam: math, steps: 3}", "{steps: 3}", "{name: }"])
def test_an_entry_without_a_name_is_counted_in_its_own_file(problem, valid, entry):
    found = problem(f"base: base.yaml\nstages:\n  - {entry}\n", base=valid)
    says(found, "recipe.yaml:3: stages.0", "`name`", "base.yaml")


def test_a_middle_base_may_change_the_bottom_one_only(problem, valid):
    middle = "base: bottom.yaml\nstages:\n  - {name: math-3, steps: 3}\n"
    found = problem("base: middle.yaml\nname: top\n", middle=middle, bottom=valid)
    says(found, "middle.yaml:3: stages.0", "bottom.yaml", "'math-3'")


def test_new_stages_of_a_derived_recipe_say_what_they_are(load, valid):
    child = "base: base.yaml\nstages:\n  - {name: math-2, extends: math, steps: 3}\n"
    assert names(load(child, base=valid)) == ["sft-1", "math", "math-2"]


@pytest.mark.parametrize(
    ("wrong", "key"), [("nonsense: 1", "nonsense"), ("steps: many", "steps"), ("kind: rll", "kind")]
)
def test_a_skipped_stage_is_read_like_the_others(problems, valid, wrong, key):
    text = valid.replace("    kind: rl\n", "    kind: rl\n    skip: true\n")
    if key in ("steps", "kind"):
        text = "\n".join(
            f"    {wrong}" if line.startswith(f"    {key}: ") and "sft" not in line else line
            for line in text.splitlines()
        )
        text = text.replace("steps: many", "steps: 10", 1) if key == "steps" else text
    else:
        text += f"    {wrong}\n"
    (found,) = problems(text + "\n")
    assert f"stages.math.{key}: " in found


def test_a_stage_that_is_skipped_from_nothing_is_refused(problem, valid):
    found = problem(valid + "  - {name: never, skip: true}\n")
    says(found, "recipe.yaml:15: stages.never.kind", "missing")


@pytest.mark.parametrize(
    ("stage", "key", "more"),
    [
        ("sft", "warmup_steps", "warmup_steps: 10"),
        ("sft", "min_learning_rate", "min_learning_rate: 1"),
        ("rl", "init", "init: nowhere"),
        ("rl", "stop_window", "stop_window: 3"),
        ("rl", "data.0.source", ""),
        ("rl", "data.0.prompt", ""),
    ],
)
def test_a_skipped_stage_is_checked_across_keys(problem, valid, stage, key, more):
    head = f"    kind: {stage}\n    data: [{{source: rows.jsonl"
    wrong = {"data.0.source": "source: ''", "data.0.prompt": "source: rows.jsonl, prompt: Add."}.get(key)
    data = f"    data: [{{{wrong or 'source: rows.jsonl'}"
    text = valid.replace(head, f"    kind: {stage}\n    skip: true\n{f'    {more}' if more else '    seed: 1'}\n{data}")
    name = {"sft": "sft-1", "rl": "math"}[stage]
    assert f" stages.{name}.{key}: " in problem(text)


def test_a_skipped_stage_may_start_from_any_earlier_one(load, valid):
    text = valid.replace("kind: sft", "kind: sft\n    skip: true") + (
        "  - {name: a, extends: math, init: sft-1, skip: true}\n  - {name: b, extends: math, init: math, skip: true}\n"
    )
    assert load(text).skipped == ("sft-1", "a", "b")


@pytest.mark.parametrize("first", ["{name: math, skip: true}", "{name: math, steps: 2}", "{name: math}"])
def test_a_stage_of_the_base_is_changed_by_one_entry(problem, valid, first):
    child = f"base: base.yaml\nstages:\n  - {first}\n  - {{name: math, steps: 3}}\n"
    says(problem(child, base=valid), "recipe.yaml:4: stages.1", "math", "twice", "recipe.yaml:3")


def test_a_skipped_stage_of_the_base_can_be_written_anew(load, valid):
    new = "{name: math, kind: sft, data: [{source: x}], learning_rate: 1e-3, steps: 3}"
    loaded = load(f"base: base.yaml\nstages:\n  - {{name: math, skip: true}}\n  - {new}\n", base=valid)
    assert [(stage.name, stage.kind) for stage in loaded.recipe.stages] == [("sft-1", "sft"), ("math", "sft")]


def test_strays_are_described_in_whole_sentences(problem, valid):
    found = problem("base: base.yaml\nstages: [{name: zzz, steps: 3}]\n", base=valid)
    assert "math. A new stage" in found
    says(problem("base: base.yaml\nstages:\n  -\n", base=valid), "recipe.yaml:3: stages.0", "nothing")


@pytest.mark.parametrize("kind", ["", "null", "~"])
def test_an_empty_kind_is_missing(problem, valid, kind):
    found = problem(valid.replace("kind: rl", f"kind: {kind}"))
    says(found, "recipe.yaml:10: stages.math.kind", "missing", "reward_model")

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascade_rl.recipe import RecipeError, load_recipe

BASE = """\
name: demo
model: tiny-qwen3
seed: 3
defaults:
  rl: {group_size: 16, rollout: {top_p: 0.95}}
stages:
  - name: sft
    kind: sft
    data: [{source: rows.jsonl}]
    learning_rate: 5e-5
    epochs: 1
    batch_size: 8
  - name: math
    kind: rl
    data: [{source: rows.jsonl}]
    reward: {use: "rewards.math:verify", strictness: 2}
    learning_rate: 2e-6
    steps: 10
    rollout: {max_new_tokens: 64}
  - name: math-long
    extends: math
    rollout: {max_new_tokens: 128}
    steps: 20
"""


def write(folder: Path, text: str, name: str = "r.yaml") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def problems(path, overrides=()):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


def test_defaults_extends_and_parents(tmp_path):
    recipe = load_recipe(write(tmp_path, BASE)).recipe
    sft, math, long = recipe.stages
    assert (sft.init, math.init, long.init) == ("model", "sft", "math")
    assert (math.group_size, math.rollout.top_p, math.rollout.max_new_tokens) == (16, 0.95, 64)
    assert (long.rollout.max_new_tokens, long.rollout.top_p, long.steps, long.learning_rate) == (128, 0.95, 20, 2e-6)
    assert math.reward.params == {"strictness": 2}
    assert {stage.seed for stage in recipe.stages} == {3}


def test_set_beats_everything_and_defaults_lie_below(tmp_path):
    path = write(tmp_path, BASE)
    recipe = load_recipe(
        path, ["stages.math.group_size=4", "seed=9", "stages.math.data.0.limit=5", "evaluate.base_model=false"]
    ).recipe
    assert recipe.stages[1].group_size == 4
    assert recipe.stages[2].group_size == 4  # extends math
    assert recipe.seed == 9
    assert recipe.stages[1].data[0].limit == 5
    assert recipe.evaluate.base_model is False


def test_base_edits_one_stage_in_place(tmp_path):
    write(tmp_path, BASE, "base.yaml")
    child = write(tmp_path, "base: base.yaml\nname: child\nstages:\n  - {name: math, steps: 99}\n")
    loaded = load_recipe(child)
    assert [s.name for s in loaded.recipe.stages] == ["sft", "math", "math-long"]
    assert loaded.recipe.stages[1].steps == 99
    assert [f.name for f in loaded.files] == ["r.yaml", "base.yaml"]
    assert str(loaded.place("stages", "math", "learning_rate")).endswith("base.yaml:17")
    assert str(loaded.place("stages", "math", "steps")).endswith("r.yaml:4")


def test_base_swaps_adds_and_skips(tmp_path):
    write(tmp_path, BASE, "base.yaml")
    child = write(
        tmp_path,
        """\
        base: base.yaml
        stages:
          - {name: math-long, init: sft}
          - {name: new, extends: math}
          - {name: math, init: new}
          - {name: sft, skip: false, epochs: 2}
        """,
    )
    # math-long, math and sft take the slots of sft, math, math-long in this order; new follows math-long
    message = problems(child)
    assert "sft comes at or after math-long" in message
    child = write(
        tmp_path, "base: base.yaml\nstages:\n  - {name: math-long}\n  - {name: math, skip: true}\n", "skip.yaml"
    )
    assert [s.name for s in load_recipe(child).recipe.stages] == ["sft", "math-long"]


def test_all_problems_at_once_with_places(tmp_path):
    path = write(tmp_path, BASE.replace("steps: 10", "stepz: 10").replace("epochs: 1", "epochs: x\n    temperature: 1"))
    message = problems(path)
    assert "r.yaml:11: stages.sft.epochs: must be a number, not 'x'" in message
    assert "r.yaml:19: stages.math.stepz: unknown key; did you mean steps?" in message
    assert "stages.math.steps: missing" in message
    assert message.splitlines()[-1].endswith(f"problems in {path}")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stages.math.temperature=1", "unknown key here; it belongs to rollout.temperature"),
        ("stages.math.rollout.topp=1", "did you mean top_p?"),
        ("stages.mth.steps=1", "there is no item 'mth'; did you mean math?"),
        ("stages.math.steps", "must look like --set"),
        ("stages.math.group_size=1", "must be at least 2, not 1"),
        ("stages.math.overlong=maybe", "must be one of filter or penalise, not 'maybe'"),
        ("stages.math.init=math-long", "math-long comes at or after math"),
        ("stages.math.init=sfd", "did you mean sft?"),
        ("stages.math.kind=rll", "there is no kind 'rll'; did you mean rl?"),
        ("stages.sft.steps=5", "give exactly one of `epochs` and `steps`"),
        ("stages.math.optimizer_state=inherit", "stage sft is of kind sft"),
        ("stages.math.warmup_steps=10", "leave nothing of 10 steps"),
        ("stages.math.min_learning_rate=1", "is above learning_rate"),
        ("stages.math.rollout.temperature=0", "identical"),
        ("stages.math.data.0.prompt='{problem} {}'", "empty {}"),
        ("stages.math.data.0.extract={answer: '('}", "is no regular expression"),
        ("stages.math.data.0.extract={answer: 'a'}", "needs a group"),
        ("name=Bad Name", "will not do as a name"),
        ("stages.math.name=sft", "stages are called sft"),
        ("evaluate.after_each_stage=[{name: a}]", "evaluate.after_each_stage.0.data: missing"),
        ("stages=3", "must be a list of stages"),
    ],
)
def test_messages(tmp_path, override, expected):
    assert expected in problems(write(tmp_path, BASE), [override])


def test_circles(tmp_path):
    a = write(tmp_path, "base: b.yaml\n", "a.yaml")
    write(tmp_path, "base: a.yaml\n", "b.yaml")
    assert "circle: a.yaml -> b.yaml -> a.yaml" in problems(a)
    stages = BASE.replace("  - name: math\n", "  - name: math\n    extends: math-long\n")
    assert "circle" in problems(write(tmp_path, stages))


def test_resolved_recipe_loads_to_the_same(tmp_path):
    first = load_recipe(write(tmp_path, BASE))
    second = load_recipe(write(tmp_path, first.to_yaml(), "resolved.yaml"))
    assert second.recipe == first.recipe
    assert "defaults" not in first.to_yaml()


def test_batches_must_divide(tmp_path):
    from cascade_rl.recipe.checks import check_structure

    loaded = load_recipe(write(tmp_path, BASE), ["stages.math.prompts_per_step=10"])
    messages = [str(p) for p in check_structure(loaded, 4)]
    assert any("10 does not divide over 4 ranks; use 8 or 12" in m for m in messages)


def test_context_is_checked(tmp_path):
    from cascade_rl.recipe.checks import check_context

    loaded = load_recipe(write(tmp_path, BASE), ["stages.sft.max_length=100"])
    messages = [str(p) for p in check_context(loaded, 100)]
    assert len(messages) == 1
    assert "stages.math-long.rollout.max_new_tokens: needs 128 positions, the model has 100" in messages[0]


MUTATIONS = st.one_of(
    st.none(), st.integers(-5, 5), st.floats(allow_nan=True), st.text(max_size=5), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2), st.booleans(),
)  # fmt: skip
KEYS = ["name", "stages", "stages.sft", "stages.math.data", "stages.math.reward", "stages.math.rollout", "stages.sft.data.0",
        "defaults", "defaults.rl", "evaluate", "evaluate.after_each_stage", "stages.math.extends", "stages.math.betas",
        "stages.math.kind", "stages.math.init", "template", "model_args", "tracking.wandb"]  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KEYS), MUTATIONS), min_size=1, max_size=3))
def test_any_mutation_loads_or_says_why(tmp_path, changes):
    import json

    path = write(tmp_path, BASE)
    try:
        load_recipe(path, [f"{key}={json.dumps(value)}" for key, value in changes])
    except RecipeError as error:
        assert str(error)


def test_no_torch_is_imported():
    code = (
        "import sys, cascade_rl.recipe; print(sorted({'torch', 'transformers', 'datasets', 'vllm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_shipped_recipe_loads_and_opens_with_what_it_is_for():
    for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")):
        assert load_recipe(path).recipe.stages
        assert path.read_text().startswith("# "), path

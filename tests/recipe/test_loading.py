"""The loaded recipe, its way back to YAML, and what no mutilated recipe may do: fail in any other way."""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rl.recipe import KINDS, Problem, Recipe, RecipeError, SourceLine, load_recipe
from cascade_rl.recipe.reading import parse
from cascade_rl.recipe.writing import to_yaml

REPOSITORY = Path(__file__).parents[2]

RICH = """\
name: rich
model: tiny-qwen3
model_args: {layers: 2}
template: {mode: instruct, system: null}
defaults:
  rl: {group_size: 4, rollout: {top_p: 0.95}}
stages:
  - name: sft-1
    kind: sft
    data:
      - {source: rows.jsonl, columns: {question: q}, extract: {answer: '#### (.*)'}, prompt: "{question}\\n\\nThink."}
      - {source: "pkg.mod:rows", args: {a: [1, {b: 2.5}], c: null, d: "no"}}
    learning_rate: 1e-3
    epochs: 2
    batch_size: 64
    micro_batch_size: 4
  - name: math
    kind: rl
    data: [{source: openai/gsm8k, config: main, limit: 100}]
    reward: {use: "rewards.math:verify", timeout_s: 3, exact: true}
    learning_rate: 2e-6
    steps: 20
    rollout: {max_new_tokens: 512}
  - {name: math-2, extends: math, steps: 30, seed: 7, optimizer_state: inherit}
evaluate:
  after_each_stage:
    - aime24
    - {use: aime25, samples: 4, sampling: {temperature: 1.0, top_p: 0.5}}
    - {name: mine, data: [{source: a.jsonl}], reward: {use: "a:b"}, sampling: {temperature: 1.0}}
tracking: {wandb: {project: x}, trackio: {}}
launch: {accelerate: launch/accelerate/ddp-8.yaml}
"""


def load_text(text: str | bytes, *overrides: str):
    """Load from a file of its own; hypothesis gives many texts to one test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_recipe(path, overrides)


def test_parents_and_seeds_are_resolved(load):
    recipe = load(RICH).recipe
    assert [stage.init for stage in recipe.stages] == ["model", "sft-1", "math"]
    assert [stage.seed for stage in recipe.stages] == [42, 42, 7]


def test_places(load):
    loaded = load(RICH)
    assert loaded.place() == SourceLine("recipe.yaml", 1)
    assert loaded.place("nothing", "here") == SourceLine("recipe.yaml", 1)
    assert loaded.place("stages", "math", "reward", "timeout_s") == SourceLine("recipe.yaml", 20)
    assert loaded.place("stages", 1, "reward", "absent", "deeper") == SourceLine("recipe.yaml", 20)
    assert loaded.place("stages", "math-2", "group_size") == SourceLine("recipe.yaml", 6)
    assert loaded.place("stages", "math-2", "init") == SourceLine("recipe.yaml", 24)
    assert loaded.place("stages", "sft-1", "data", 1, "args", "a", 1, "b") == SourceLine("recipe.yaml", 12)
    assert loaded.place("stages", "absent") == loaded.place("stages") == SourceLine("recipe.yaml", 7)
    assert str(loaded.place("model")) == "recipe.yaml:2"


def test_to_yaml_is_short_and_loads_as_the_same_recipe(load):
    loaded = load(RICH)
    text = loaded.to_yaml()
    assert load_text(text).recipe == loaded.recipe
    values = yaml.safe_load(text)
    assert values["stages"][2] == {
        "name": "math-2",
        "kind": "rl",
        "init": "math",
        "data": [{"source": "openai/gsm8k", "config": "main", "limit": 100}],
        "reward": {"use": "rewards.math:verify", "timeout_s": 3.0, "exact": True},
        "learning_rate": 2e-6,
        "seed": 7,
        "optimizer_state": "inherit",
        "group_size": 4,
        "steps": 30,
        "rollout": {"max_new_tokens": 512, "top_p": 0.95},
    }
    assert list(values) == ["name", "model", "model_args", "template", "stages", "evaluate", "tracking", "launch"]
    assert values["template"] == {"mode": "instruct", "system": None}


def test_every_shipped_recipe_says_what_it_is_for_loads_and_comes_back_from_its_yaml():
    shipped = sorted((REPOSITORY / "recipes").glob("*.yaml"))
    assert shipped
    for path in shipped:
        assert path.read_text().startswith("# "), path
        loaded = load_recipe(path)
        assert load_text(loaded.to_yaml()).recipe == loaded.recipe


# Round trip

WORDS = st.sampled_from([
    "no", "on", "2e-6", "1e3", "0o7", "~", "null", "", " x", "x ", "a: b", "- a", "#", "{", "<<", "=", "1_000", "12:30",
    "2026-11-24", "&a", "*a", "!t", "'", '"', "a\nb", "\n", "\t", "é\u2028😀\x85", "%",
])  # fmt: skip
TEXT = WORDS | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
RATES = st.floats(min_value=0, max_value=1, exclude_min=True)
DECAYS = st.floats(0, 1, exclude_max=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1).filter(lambda n: n > -(2**63)) | FLOATS | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXT.filter(lambda key: key != "<<"), inner, max_size=3)
    ),
    max_leaves=6,
)
SOURCES = st.fixed_dictionaries(
    {"source": TEXT.filter(str.strip)},
    optional={"args": st.dictionaries(TEXT, VALUES, max_size=3), "columns": st.dictionaries(TEXT, TEXT, max_size=2),
              "config": TEXT.filter(str.strip), "limit": st.integers(1, 10**6)},
)  # fmt: skip
SFT = st.fixed_dictionaries(
    {"kind": st.just("sft"), "data": st.lists(SOURCES, min_size=1, max_size=2), "learning_rate": RATES,
     "steps": st.integers(1, 10**6)},
    optional={"packing": st.booleans(), "betas": st.tuples(DECAYS, DECAYS), "seed": st.integers(0, 99)},
)  # fmt: skip
RL = st.fixed_dictionaries(
    {"kind": st.just("rl"), "data": st.lists(SOURCES, min_size=1, max_size=2), "learning_rate": RATES,
     "steps": st.integers(1, 10**6),
     "reward": st.fixed_dictionaries({"use": TEXT}, optional={"extra": VALUES, "failure": FLOATS})},
    optional={"rollout": st.fixed_dictionaries({}, optional={"top_p": st.floats(0.1, 1), "top_k": st.sampled_from([0, 2, 9])})},
)  # fmt: skip


@given(
    st.lists(SFT | RL, min_size=1, max_size=3),
    st.fixed_dictionaries({}, optional={"description": TEXT, "seed": st.integers(0, 99)}),
)
@settings(max_examples=80, deadline=None)
def test_any_recipe_comes_back_from_its_yaml(stages, rest):
    named = [{**stage, "name": f"stage-{i}", "init": "model"} for i, stage in enumerate(stages)]
    typed = [KINDS[stage["kind"]].model_validate({"seed": rest.get("seed", 42), **stage}) for stage in named]
    recipe = Recipe(name="x", model="y", stages=typed, **rest)
    assert load_text(to_yaml(recipe)).recipe == recipe


@given(TEXT)
@settings(max_examples=100, deadline=None)
def test_text_stays_the_same_text_for_readers_of_yaml_1_1_too(text):
    stage = {"name": "s", "kind": "sft", "init": text, "data": [{"source": "x"}], "learning_rate": 1.0, "steps": 1}
    recipe = Recipe(name="x", model=text, stages=[KINDS["sft"].model_validate(stage)])
    written = to_yaml(recipe)
    assert parse(written, "x.yaml")["model"] == text
    assert yaml.safe_load(written)["stages"][0]["init"] == text


# Mutilation


def _all_paths(value: Any, above: tuple = ()) -> list[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(path for key, inner in items for path in _all_paths(inner, (*above, key)))]


JUNK = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.just([]) | st.just({}) | st.just([{}])
WORDS_OF_RECIPES = st.sampled_from(
    ["base", "defaults", "extends", "skip", "init", "kind", "name", "math", "math-2", "sft", "rl", "stages", "steps"]
)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    values = yaml.load(yaml.dump(yaml.safe_load(RICH)), Loader=yaml.SafeLoader)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in _all_paths(values) if path]))
        holder = values
        for key in path[:-1]:
            holder = holder[key]
        other = draw(st.sampled_from([copy.deepcopy(_at(values, p)) for p in _all_paths(values)]) | JUNK)
        match draw(st.sampled_from(["replace", "delete", "add", "word"])):
            case "replace":
                holder[path[-1]] = other
            case "delete":
                del holder[path[-1]]
            case "add" if isinstance(holder, dict):
                holder[draw(WORDS_OF_RECIPES | TEXT)] = draw(WORDS_OF_RECIPES) if draw(st.booleans()) else other
            case "add":
                holder.append(other)
            case "word":
                holder[path[-1]] = draw(WORDS_OF_RECIPES)
        if not isinstance(values, dict) or not values:
            break
    return values


def _at(value: Any, path: tuple) -> Any:
    for key in path:
        value = value[key]
    return value


def assert_loads_or_explains(text: str | bytes, *overrides: str) -> None:
    error = loaded = None
    try:
        loaded = load_text(text, *overrides)
    except RecipeError as raised:
        error = raised
    if loaded is not None:
        assert load_text(loaded.to_yaml()).recipe == loaded.recipe
        return
    assert error.problems
    assert str(error).count("\n") >= len(error.problems)
    assert all(problem.message and problem.file for problem in error.problems)
    assert "Input should" not in str(error)  # pydantic's own words


class _WithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


@given(mutated())
@settings(max_examples=60, deadline=None)
def test_a_recipe_with_other_values_loads_or_says_why_not(values):
    assert_loads_or_explains(yaml.dump(values, Dumper=_WithoutAliases, sort_keys=False))


@given(
    st.integers(0, len(RICH)), st.integers(0, 40), st.text(max_size=6) | st.sampled_from(list(":{}[]-\t\n#'\"|&*!%@"))
)
@settings(max_examples=60, deadline=None)
def test_a_recipe_with_other_letters_loads_or_says_why_not(start, length, inserted):
    text = RICH[:start] + inserted + RICH[start + length :]
    assert_loads_or_explains(text.encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_bytes_load_or_say_why_not(data):
    assert_loads_or_explains(data)


SEGMENTS = st.sampled_from(
    ["stages", "math", "sft-1", "0", "1", "data", "defaults", "rl", "steps", "name", "skip", "x", ""]
)


@given(st.lists(SEGMENTS, max_size=4), st.sampled_from(["=", ""]), TEXT | JUNK.map(repr))
@settings(max_examples=60, deadline=None)
def test_any_override_loads_or_says_why_not(segments, equals, value):
    assert_loads_or_explains(RICH, f"{'.'.join(segments)}{equals}{value}")


def test_importing_the_recipe_brings_no_heavy_library():
    code = (
        "import sys, cascade_rl.recipe, cascade_rl.recipe.checks; "
        "print(sorted({'torch', 'transformers', 'datasets', 'vllm', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_problem_in_code_of_other_rooms_finds_its_place(load):
    problem = Problem.at(load(RICH), ("stages", "math", "reward"), "takes no `exact`")
    assert str(problem) == "recipe.yaml:20: stages.math.reward: takes no `exact`"


@pytest.mark.parametrize("key", ["name", "model", "stages"])
def test_each_required_key(problems, key):
    values = yaml.safe_load(RICH)
    del values[key]
    assert [line.split(": ")[1] for line in problems(yaml.dump(values))] == [key]

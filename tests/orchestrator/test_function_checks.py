"""Losses and advantages by import path: what `check` says of them, and how they name a stage's result."""

import json
import sys

import pytest

from cascade_rl.orchestrator.plan import make_plan
from cascade_rl.orchestrator.preflight import preflight
from cascade_rl.recipe import RecipeError, load_recipe
from cascade_rl.store import Store
from tests.builders import rl_recipe
from tests.messages import mentions

RECIPE = rl_recipe("own_methods:score", "    prompts_per_step: 4\n")
CODE = """
def score(response): return 0.0
def loss(inputs, *, power: float = 1.0): return inputs.logprobs
def advantage(group, *, scale: float): return scale * group.rewards
limit = 3
def summed(inputs): return inputs.logprobs.sum()
def stopped(inputs): return inputs.logprobs.detach() * inputs.advantages
def referring(inputs): return inputs.logprobs - inputs.reference_logprobs
def means(inputs): return inputs.logprobs - inputs.mean_over_rollouts(inputs.logprobs)
def short(group): return group.rewards[:-1]
def undefined(group): return group.rewards / (group.rewards.max() - group.rewards.max())
"""
GSPO = "cascade_rl.algorithms.gspo:loss"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "rl.jsonl").write_text(json.dumps({"prompt": "r"}) + "\n")
    (tmp_path / "own_methods.py").write_text(CODE)
    yield tmp_path
    sys.modules.pop("own_methods", None)


def recipe(folder, **keys):
    changes = [f"stages.rl.{key}={json.dumps(value)}" for key, value in keys.items()]
    return load_recipe(folder / "r.yaml", changes)


def problems(folder, **keys):
    with pytest.raises(RecipeError) as caught:
        preflight(recipe(folder, **keys), 1)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "keys",
    [
        {"loss": {"use": "own_methods:loss", "power": 2, "kl": 0.1}},
        {"loss": {"use": GSPO, "clip_low": 1e-3}, "updates_per_batch": 2},
        {"loss": {"use": "own_methods:referring", "kl": 0.1}},
        {"advantage": {"use": "own_methods:advantage", "scale": 2.0}},
        {"advantage": "cascade_rl.algorithms.reinforce_pp:advantage"},
        {"advantage": {"use": "cascade_rl.algorithms.reinforce_pp:with_baseline", "over": "rollouts"}},
    ],
)
def test_what_fits_passes(folder, keys):
    preflight(recipe(folder, **keys), 1)


@pytest.mark.parametrize(
    ("keys", "place", "words"),
    [
        ({"loss": {"use": "own_methods:los"}}, "stages.rl.loss", "own_methods:los loss"),
        ({"loss": {"use": "nowhere:loss"}}, "stages.rl.loss", "nowhere module"),
        ({"loss": {"use": "own_methods:limit"}}, "stages.rl.loss", "own_methods:limit int"),
        ({"loss": {"use": "own_methods:loss", "powr": 2.0}}, "stages.rl.loss", "powr power"),
        ({"loss": {"use": "own_methods:loss", "power": "high"}}, "stages.rl.loss", "power number"),
        ({"loss": {"use": "own_methods:loss", "clip_low": 0.1}}, "stages.rl.loss", "clip_low"),
        ({"loss": {"use": "own_methods:summed"}}, "stages.rl.loss", "own_methods:summed shape"),
        ({"loss": {"use": "own_methods:stopped"}}, "stages.rl.loss", "own_methods:stopped gradient"),
        ({"loss": {"use": "own_methods:referring"}}, "stages.rl.loss", "own_methods:referring TypeError"),
        ({"loss": {"use": "own_methods:means"}}, "stages.rl.loss", "own_methods:means `whole_rollouts`"),
        ({"advantage": "own_methods:short"}, "stages.rl.advantage", "own_methods:short 8"),
        ({"advantage": "own_methods:undefined"}, "stages.rl.advantage", "own_methods:undefined finite"),
        ({"loss": {"use": "loss"}}, "stages.rl.loss.use", "'loss' path"),
        ({"advantage": {"use": "own_methods:advantage"}}, "stages.rl.advantage", "needs scale"),
        ({"advantage": "own_methods:advantages"}, "stages.rl.advantage", "mean advantage"),
        ({"advantage": {"scale": 2.0}}, "stages.rl.advantage", "use path"),
        ({"advantage": "grup"}, "stages.rl.advantage", "'grup' group leave_one_out"),
        ({"advantage": 3}, "stages.rl.advantage", "3 group"),
        ({"loss": {"klx": 0.1}}, "stages.rl.loss.klx", "kl"),
        (
            {"loss": {"use": GSPO}, "mismatch": {"cap": 2.0}},
            "stages.rl.mismatch",
            "cap mask",
        ),
        ({"loss": {"use": GSPO}, "sharding": {"sequence_parallel": 2}}, "sequence_parallel", "whole rollouts"),
    ],
)
def test_what_does_not_fit_is_named_at_its_place(folder, keys, place, words):
    found = problems(folder, **keys)
    assert any(place in text and mentions(text, *words.split()) for text in found), found


def test_the_source_is_a_part_of_the_identity(folder):
    def identity(**keys):
        return make_plan(recipe(folder, **keys), Store(folder / "store")).stages[0].identity

    plain = identity()
    assert identity(advantage="group") == plain
    own = {"loss": {"use": "own_methods:loss"}, "advantage": {"use": "own_methods:advantage", "scale": 2.0}}
    first = {name: identity(**{name: value}) for name, value in own.items()}
    assert len({plain, *first.values()}) == 3
    assert identity(loss={"use": "own_methods:loss", "power": 2.0}) != first["loss"]
    (folder / "own_methods.py").write_text(CODE.replace("return inputs.logprobs", "return -inputs.logprobs"))
    for name, value in own.items():
        assert identity(**{name: value}) != first[name]
    record = make_plan(recipe(folder, **own), Store(folder / "store")).stages[0].inputs
    assert {"loss_source", "advantage_source"} <= set(record)
    assert not {"loss_source", "advantage_source"} & set(make_plan(recipe(folder), Store(folder)).stages[0].inputs)

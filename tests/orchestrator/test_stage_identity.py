"""A stage keeps its identity while it computes the same, and gets another where it does not."""

import json

import pytest

from cascade_rl.orchestrator.plan import make_plan
from cascade_rl.orchestrator.stage_inputs import config_inputs
from cascade_rl.recipe import RlStage, SftStage, load_recipe
from cascade_rl.store import Store

ROW = {"prompt": "1+1?", "answer": "2", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}  # fmt: skip


@pytest.fixture
def identity(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    kinds = {
        "rl": {"reward": {"use": "rewards.math:verify"}},
        "sft": {},
    }

    def of(kind, **keys):
        stage = {"name": "s", "kind": kind, "data": [{"source": "rows.jsonl"}], "learning_rate": 1e-6, "steps": 4,
                 **kinds[kind], **keys}  # fmt: skip
        recipe = {"name": "r", "model": "tiny-qwen3", "stages": [stage]}
        (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
        return make_plan(load_recipe(tmp_path / "recipe.yaml"), Store(tmp_path / "store")).stages[0].identity

    return of


@pytest.mark.parametrize(("kind", "before", "other"), [("rl", "all", "matrices"), ("sft", "matrices", "all")])
def test_decaying_as_the_kind_did_before_keeps_the_identity(identity, kind, before, other):
    default = identity(kind, weight_decay=0.1)
    kept, moved = (identity(kind, weight_decay=0.1, weight_decay_on=chosen) for chosen in (before, other))
    assert kept != moved
    assert default == identity(kind, weight_decay=0.1, weight_decay_on="matrices")
    without = {identity(kind, weight_decay_on=chosen) for chosen in (None, "all", "matrices")}
    assert without == {identity(kind)}  # nothing decays


def test_shipped_hashes_do_not_know_the_key():
    """What a hash is made of, for a decay as each kind had it: no new key."""
    base = {"name": "s", "data": [{"source": "x"}], "learning_rate": 1e-6, "steps": 4, "weight_decay": 0.1}
    rl = RlStage.model_validate({**base, "reward": {"use": "a:b"}, "weight_decay_on": "all"})
    for config in (rl, SftStage.model_validate(base)):
        assert not {"weight_decay_on", "updates"} & set(config_inputs(config))


def test_several_updates_are_another_stage_than_before():
    base = {"name": "s", "data": [{"source": "x"}], "learning_rate": 1e-6, "steps": 4, "reward": {"use": "a:b"}}
    several = RlStage.model_validate({**base, "updates_per_batch": 2, "loss": {"clip_high": 0.2}})
    assert "updates" in config_inputs(several)
    assert "updates" not in config_inputs(RlStage.model_validate({**base, "updates_per_batch": 1}))


def test_the_default_support_written_out_is_the_same_stage(identity):
    plain = identity("rl", mismatch={"cap": 2.0})
    assert identity("rl", mismatch={"cap": 2.0, "support": "whole"}) == plain
    assert identity("rl", mismatch={"cap": 2.0, "support": "kept"}, rollout={"top_k": 5}) != plain

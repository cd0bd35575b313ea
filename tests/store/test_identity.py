import pytest

from cascade_rl.recipe import RlStage
from cascade_rl.store.identity import differences, identity_fields, identity_of

STAGE = {
    "name": "m",
    "data": [{"source": "x"}],
    "reward": {"use": "a:b", "depth": 2},
    "learning_rate": 1e-6,
    "steps": 5,
}


def fields(**changes):
    return identity_fields(RlStage.model_validate({**STAGE, **changes}))


def test_what_changes_the_result_changes_the_identity():
    base = identity_of(fields())
    for changes in (
        {"steps": 6},
        {"rollout": {"temperature": 0.9}},
        {"reward": {"use": "a:b", "depth": 3}},
        {"overlong": "filter"},
        {"betas": [0.9, 0.99]},
    ):
        assert identity_of(fields(**changes)) != base, changes


def test_where_and_how_fast_does_not():
    base = identity_of(fields())
    for changes in (
        {"save_every": 1},
        {"engine": {"max_num_seqs": 8}},
        {"tokens_per_micro_batch": 99},
        {"gradient_checkpointing": True},
        {"reward": {"use": "a:b", "depth": 2, "workers": 7}},
    ):
        assert identity_of(fields(**changes)) == base, changes


def test_order_of_keys_does_not_matter_and_values_without_text_are_refused():
    assert identity_of({"a": 1, "b": 2}) == identity_of({"b": 2, "a": 1})
    with pytest.raises(TypeError):
        identity_of({"a": object()})


def test_differences_by_hand():
    old = {"config": {"steps": 1, "rollout": {"top_p": 1.0}}, "data": [{"files": ["aa"]}]}
    new = {"config": {"steps": 2, "rollout": {"top_p": 1.0}}, "data": [{"files": ["bb"]}]}
    assert differences(old, new) == ["config.steps: 1 -> 2", 'data[0].files[0]: "aa" -> "bb"']

import re

import pytest
from pydantic import ValidationError

from cascade_rl.recipe import RlStage
from cascade_rl.stages.onpolicy.stop_when import Switch
from cascade_rl.types import CascadeError

BASE = {"name": "m", "data": [{"source": "x"}], "reward": {"use": "a:b"}, "learning_rate": 1e-6, "steps": 4}


def switch(window=3, **conditions):
    return Switch(RlStage.model_validate({**BASE, "stop_when": conditions}).stop_conditions, window)


def test_it_holds_for_the_mean_of_a_whole_window():
    lower = switch(truncation_rate="< 0.10")
    for value in (0.30, 0.05, 0.05):
        assert lower.reason is None  # not before three steps
        lower.observe({"completions/truncated": value})
    assert lower.reason is None  # (0.30 + 0.05 + 0.05) / 3 = 0.133
    lower.observe({"completions/truncated": 0.05})
    assert re.search(r"completions/truncated < 0\.1 .*\b3\b.* 0\.05\b", lower.reason)


def test_all_conditions_must_hold():
    both = switch(window=1, reward=">= 0.5", entropy="<= 1")
    both.observe({"reward/mean": 0.5, "policy/entropy": 2.0})
    assert both.reason is None
    both.observe({"reward/mean": 0.5, "policy/entropy": 1.0})
    assert both.reason


def test_a_value_that_is_no_number_decides_nothing():
    one = switch(window=1, reward="> 0")
    one.observe({"reward/mean": float("nan")})
    assert one.reason is None


def test_no_condition_never_stops():
    none = switch()
    none.observe({"reward/mean": 1.0})
    assert none.reason is None


def test_its_window_is_saved():
    one, other = (switch(window=2, reward="> 0") for _ in range(2))
    one.observe({"reward/mean": 1.0})
    other.restore(one.state())
    for each in (one, other):
        each.observe({"reward/mean": 2.0})
    assert one.reason == other.reason
    assert re.search(r"reward/mean > 0 .*\b2\b.* 1\.5\b", one.reason)


def test_a_metric_that_does_not_exist_is_named_at_once():
    with pytest.raises(CascadeError, match="'reward/meen'.*reward/mean"):
        switch(**{"reward/meen": "> 1"}).observe({"reward/mean": 1.0, "loss": 2.0})


@pytest.mark.parametrize("text", ["0.1", "= 3", "< ten", "< 1 < 2", ""])
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(ValidationError, match='stop_when.*"< 0.10"'):
        switch(reward=text)

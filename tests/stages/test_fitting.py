"""A stage whose rows come from the hub says at its start what `check` says of local rows."""

import pytest

from cascade_rl.recipe import RlStage
from cascade_rl.stages.fitting import refuse_domains, refuse_unbound, refuse_unfit
from cascade_rl.types import CascadeError, Prompt

GRADER = "def score(response, answer, tolerance=0.0): return 0.0\ndef exact(response, reference): return 0.0\n"


@pytest.fixture
def search(tmp_path):
    (tmp_path / "fitting_grader.py").write_text(GRADER)
    return [tmp_path]


def stage(**keys):
    base = {"name": "m", "data": [{"source": "x"}], "learning_rate": 1e-6, "steps": 4}
    return RlStage.model_validate({**base, **keys})


def prompt(domain="", **columns):
    return Prompt("p", ({"role": "user", "content": "q"},), columns, domain=domain)


SCORE, EXACT = {"use": "fitting_grader:score"}, {"use": "fitting_grader:exact"}


def test_a_column_that_no_row_has_is_named(search):
    config = stage(reward=SCORE)
    refuse_unfit(config, [prompt(), prompt(answer=1)], search)  # the first row is a row's error, not the stage's
    with pytest.raises(CascadeError, match="stage m.*`answer`.*anser"):
        refuse_unfit(config, [prompt(anser=1)] * 3, search)
    refuse_unfit(stage(reward={**SCORE, "answer": "4"}), [prompt()], search)


def test_each_reward_is_asked_of_its_own_domain(search):
    config = stage(rewards={"math": SCORE, "code": EXACT})
    refuse_unfit(config, [prompt("math", answer=1), prompt("code", reference=1)], search)
    refuse_unfit(config, [prompt("math", answer=1)], search)  # nothing of the other domain is left
    with pytest.raises(CascadeError, match="code.*`reference`"):
        refuse_unfit(config, [prompt("math", answer=1), prompt("code", answer=1)], search)


def test_a_domain_without_a_reward_is_named(search):
    config = stage(rewards={"math": SCORE})
    for domain, word in (("code", "'code'"), ("", "domain")):
        with pytest.raises(CascadeError, match=f"{word}.*math"):
            refuse_unfit(config, [prompt("math", answer=1), prompt(domain, answer=1)], search)
    refuse_domains("d", [prompt("math")], {"math": None, "code": None}, "teachers")


def test_a_benchmarks_reward_is_asked_too(search):
    from cascade_rl.recipe import RewardConfig

    with pytest.raises(CascadeError, match="benchmark b.*`reference`"):
        refuse_unbound("benchmark b", RewardConfig(**EXACT), [prompt(answer=1)], search)

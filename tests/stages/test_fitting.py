"""A stage whose rows come from the hub says at its start what `check` says of local rows."""

import pytest

from cascade_rl.recipe import RlStage
from cascade_rl.stages.fitting import refuse_domains, refuse_unbound, refuse_unfit
from cascade_rl.types import CascadeError, Prompt
from tests.builders import rl_recipe

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


RECIPE = rl_recipe(
    "fitting_grader:score",
    """\
  - name: distill
    kind: distill
    data: [{source: rl.jsonl}]
    teachers: {math: {model: "stage:rl"}}
    learning_rate: 1e-6
    steps: 2
""",
)


@pytest.mark.parametrize(("name", "word"), [("rl", "`answer`"), ("distill", "domain.*math")])
def test_a_stage_stops_before_it_loads_a_model(search, tmp_path, monkeypatch, name, word):
    import contextlib
    import io

    import torch

    from cascade_rl.data.template import Template
    from cascade_rl.models.tiny_qwen3 import build_tokenizer
    from cascade_rl.orchestrator.jobs import stage_job
    from cascade_rl.orchestrator.plan import make_plan
    from cascade_rl.recipe import TemplateConfig, load_recipe
    from cascade_rl.stages import distill, rl
    from cascade_rl.stages.context import Context, StopFlag
    from cascade_rl.stages.onpolicy import setup
    from cascade_rl.store import Store
    from cascade_rl.training.ranks import Ranks

    def too_late(*_):
        raise AssertionError("a model was loaded first")

    tokenizer = build_tokenizer()
    template = Template(TemplateConfig(mode="instruct"), tokenizer)
    template.install()
    monkeypatch.setattr(setup, "load_tokenizer", lambda *_: (tokenizer, template))
    monkeypatch.setattr(setup, "make_policy", too_late)
    monkeypatch.setattr(distill, "open_teachers", lambda *_: contextlib.nullcontext())
    (tmp_path / "rl.jsonl").write_text('{"prompt": "1+1?", "anser": "2"}\n')
    (tmp_path / "r.yaml").write_text(RECIPE)
    plan = make_plan(load_recipe(tmp_path / "r.yaml"), Store(tmp_path))
    context = Context(stage_job(plan, plan.stage(name)), Ranks(0, 1, torch.device("cpu")), StopFlag(), io.StringIO())
    with pytest.raises(CascadeError, match=word):
        {"rl": rl, "distill": distill}[name].run(context)

"""Gates on hand-made evaluations: when they shut, what a roll-back does to the plan, and that resuming decides the same."""

import json

import pytest

from cascade_rl.orchestrator.gates import GateShut, Measured, ask, decide, settled
from cascade_rl.orchestrator.jobs import stage_job
from cascade_rl.orchestrator.plan import make_plan
from cascade_rl.orchestrator.rollback import without
from cascade_rl.orchestrator.run import Wishes, _at_gates, _work, prepare
from cascade_rl.recipe import GateConfig, load_recipe
from cascade_rl.store import Store
from cascade_rl.types import CascadeError
from tests.messages import mentions

RECIPE = """\
name: demo
model: tiny-qwen3
defaults: {sft: {data: [{source: rows.jsonl}], learning_rate: 1e-3, steps: 2, batch_size: 4}}
stages:
  - {name: a, kind: sft}
  - {name: b, kind: sft}
  - {name: c, kind: sft}
  - {name: d, kind: sft, init: b}
evaluate:
  after_each_stage:
    - {name: m, data: [{source: rows.jsonl, columns: {x: y}}], reward: {use: "mine:score"}}
    - {name: n, data: [{source: rows.jsonl, columns: {x: y}}], reward: {use: "mine:score"}}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    rows = [{"prompt": "q", "response": "a", "y": str(i)} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "mine.py").write_text("def score(response, x): return 1.0\n")
    return tmp_path


def loaded(folder, gates, *overrides):
    return load_recipe(folder / "r.yaml", (f"gates=[{gates}]", *overrides))


def plan_of(folder, gates, *overrides):
    return make_plan(loaded(folder, gates, *overrides), Store(folder))


def complete(stage):
    stage.folder.begin({"name": stage.name, "inputs": stage.inputs}, {})
    stage.folder.checkpoint.mkdir(parents=True)
    stage.folder.finish("complete", "complete")


def measure(plan, values, stderr=0.01, complete_too=True):
    """``values``: stage (or model) -> share of benchmark m, or of all by name."""
    for name, value in values.items():
        folder = plan.base.folder if name == "model" else plan.stage(name).folder
        if name != "model" and complete_too and not folder.is_complete:
            complete(plan.stage(name))
        folder.evals.mkdir(parents=True, exist_ok=True)
        for benchmark in plan.benchmarks:
            share = value[benchmark.config.name] if isinstance(value, dict) else value
            result = {"benchmark": benchmark.config.name, "value": share, "stderr": stderr}
            text = json.dumps({**result, "ci95": [share, share], "rows": 1, "samples": 1})
            (folder.evals / f"{benchmark.file_stem}.json").write_text(text)


def gate(**keys):
    return GateConfig(benchmark="m", **keys)


def said(config, values, stage="c", above=("b", "a", "model"), stderr=1.0):
    measured = {name: Measured(name, value, stderr) for name, value in values.items()}
    return ask(config, 0, stage, above, measured)


# When a gate shuts: values in points, stderr 1, so a difference beyond 2.77 is more than chance


@pytest.mark.parametrize(
    ("max_drop", "value", "verdict"),
    [
        (1, 58.5, "pass"),  # a drop of 1.5 is over max_drop, but chance
        (1, 57.3, "pass"),  # 2.7: still chance
        (1, 57.1, "stop"),
        (3, 57.1, "pass"),  # more than chance, but allowed
        (3, 57.0, "pass"),  # exactly what is allowed
        (3, 56.9, "stop"),
        (0, 70.0, "pass"),
    ],
)
def test_a_drop_must_be_over_the_limit_and_more_than_chance(max_drop, value, verdict):
    decision = said(gate(max_drop=max_drop), {"b": 60.0, "c": value})
    assert decision.verdict == verdict
    assert decision.drop == pytest.approx(60.0 - value)
    assert decision.chance == pytest.approx(1.96 * 2**0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("compare_to", "reference"),
    [("previous", "b"), ("best", "a"), ("model", "model"), ("a", "a")],
)
def test_what_a_value_is_compared_with(compare_to, reference):
    values = {"model": 10.0, "a": 90.0, "b": 50.0, "c": 5.0, "elsewhere": 99.0}
    assert said(gate(max_drop=1, compare_to=compare_to), values).compared_to == reference


def test_previous_is_the_nearest_measured_and_the_best_may_be_the_base():
    assert said(gate(max_drop=1), {"a": 9.0, "c": 9.0}).compared_to == "a"
    assert said(gate(max_drop=1, compare_to="best"), {"model": 9.0, "b": 9.0, "c": 9.0}).compared_to == "model"


def test_nothing_to_compare_with_keeps_the_gate_open():
    decision = said(gate(max_drop=1), {"c": 9.0}, above=())
    assert (decision.verdict, decision.compared_to, decision.drop) == ("pass", None, None)
    assert mentions(decision.message, "nothing")


def test_a_gate_is_asked_where_it_applies():
    values = {"model": 1.0, "a": 2.0, "b": 3.0, "c": 4.0}
    assert said(gate(max_drop=1, after=["b"]), values) is None
    assert said(gate(max_drop=1, after=["c"]), values) is not None
    assert said(gate(max_drop=1), {"a": 2.0}) is None  # not measured
    assert said(gate(max_drop=1, compare_to="b"), values, stage="a", above=("model",)) is None  # before b
    assert said(gate(max_drop=1), {"b": 1.0, "c": float("nan")}) is None


def test_a_least_value_is_compared_as_measured():
    assert said(gate(min_value=40), {"c": 40.0}).verdict == "pass"
    decision = said(gate(min_value=40), {"c": 39.9})
    assert decision.verdict == "stop"
    assert mentions(decision.message, "c", "m 39.9 ± 2.0", "least", "40", "stop")


@pytest.mark.parametrize(
    ("exception", "value", "verdict"),
    [
        ({"max_drop": 20}, 45.0, "excepted"),
        ({"max_drop": 20}, 39.0, "stop"),  # beyond what the exception allows
        ({"max_drop": 20}, 59.0, "pass"),  # not needed
        ({}, 0.0, "excepted"),
        ({"max_drop": 20, "stages": ["b"]}, 45.0, "stop"),  # of another stage
    ],
)
def test_exceptions_by_name(exception, value, verdict):
    named = {"name": "rlhf-costs-it", "stages": ["c"], **exception}
    decision = said(gate(max_drop=3, exceptions=[named]), {"b": 60.0, "c": value})
    assert decision.verdict == verdict
    assert decision.exception == ("rlhf-costs-it" if "c" in named["stages"] else None)
    if verdict == "excepted":
        assert mentions(decision.message, "exception", "rlhf-costs-it")


def test_an_exception_to_the_drop_leaves_the_least_value():
    named = {"name": "x", "stages": ["c"], "max_drop": 50}
    assert said(gate(max_drop=3, min_value=20, exceptions=[named]), {"b": 60.0, "c": 19.0}).verdict == "stop"
    named.pop("max_drop")
    assert said(gate(max_drop=3, min_value=20, exceptions=[named]), {"b": 60.0, "c": 19.0}).verdict == "excepted"


def test_the_message_has_both_sides():
    message = said(gate(max_drop=3, action="warn"), {"b": 60.0, "c": 42.0}).message
    both = ("c", "m 42.0 ± 2.0", "b (60.0 ± 2.0)")
    assert mentions(message, *both, "18.0", "allowed 3", "chance 2.8", "warn")


# In a run


def go(folder, gates, *overrides, **wishes):
    said = []
    plan = prepare(loaded(folder, gates, *overrides), Store(folder), Wishes(**wishes), 1, said.append)
    return plan, said


def walked(folder, gates, values, *overrides, **wishes):
    """A run whose stages finish at once and measure ``values``; (stage, parent) as trained, and what was said."""
    plan, said = go(folder, gates, *overrides, **wishes)
    trained, held = [], {"plan": plan}
    if not plan.base.folder.is_complete:
        plan.base.folder.begin({"name": "model", "kind": "base", "inputs": {}}, {})
        plan.base.folder.finish("complete", "complete")

    def at_gates(plan, stage):
        held["plan"] = _at_gates(plan, stage, Wishes(**wishes), said.append)
        return held["plan"]

    for title, job, _ in _work(plan, Wishes(**wishes), at_gates):
        if "evaluating" in title:
            measure(held["plan"], {job.name: values[job.name]})
        else:
            trained.append((job.name, held["plan"].stage(job.name).parent))
            complete(held["plan"].stage(job.name))
    return trained, said


def record(folder):
    return json.loads((folder / "runs/demo/run.json").read_text())


FALLING = {"model": 0.5, "a": 0.6, "b": 0.3, "c": 0.6, "d": 0.6}
GATE = "{benchmark: m, max_drop: 5, action: %s}"


def test_warn_says_so_and_goes_on(folder):
    trained, said = walked(folder, GATE % "warn", FALLING)
    assert trained == [("a", "model"), ("b", "a"), ("c", "b"), ("d", "b")]
    assert any(mentions(line, "GATE", "b", "m 30.0") for line in said)
    assert [(d["stage"], d["verdict"]) for d in record(folder)["gates"]] == [
        ("a", "pass"), ("b", "warn"), ("c", "pass"), ("d", "pass"),
    ]  # fmt: skip


def test_stop_ends_the_run_and_again_on_resuming_until_it_is_allowed(folder):
    for _ in range(2):
        with pytest.raises(GateShut) as caught:
            walked(folder, GATE % "stop", FALLING)
        text = str(caught.value)
        numbers = ("m 30.0 ± 2.0", "30.0", "a (60.0 ± 2.0)", "allowed 5", "chance 2.8")
        assert mentions(text, "gates.0", "b", *numbers, "stop")
        assert "--set 'gates.0.exceptions=[{name: accepted-b, stages: [b]}]'" in text
        assert "--set gates.0.action=warn" in text
        assert record(folder)["gates"][-1]["verdict"] == "stop"
    accepted = "gates.0.exceptions=[{name: accepted-b, stages: [b]}]"
    trained, said = walked(folder, GATE % "stop", FALLING, accepted)
    assert trained == [("c", "b"), ("d", "b")]  # a and b are the ones that were
    assert any(mentions(line, "exception", "accepted-b") for line in said)
    assert record(folder)["gates"][1] | {"message": ""} == {
        "stage": "b", "benchmark": "m", "gate": 0, "verdict": "excepted", "value": 30.0, "interval": 1.96,
        "compared_to": "a", "compared_value": 60.0, "compared_interval": 1.96, "drop": 30.0,
        "chance": pytest.approx(2.7719), "allowed": None, "min_value": None, "exception": "accepted-b", "message": "",
    }  # fmt: skip


def test_rollback_goes_on_from_the_parent(folder):
    trained, said = walked(folder, GATE % "rollback", FALLING)
    assert trained == [("a", "model"), ("b", "a"), ("c", "a"), ("d", "a")]  # d names b by `init`
    assert any(mentions(line, "b", "rolled", "a") for line in said)
    stages = {stage["name"]: stage for stage in record(folder)["stages"]}
    assert stages["b"]["rolled_back"] is True
    assert "rolled_back" not in stages["c"]
    assert (stages["c"]["parent"], stages["c"]["parent_identity"]) == ("a", stages["a"]["identity"])
    trained, _ = walked(folder, GATE % "rollback", FALLING)
    assert trained == []  # resumed: the same decisions, the same identities, nothing to do
    assert {s["name"]: s["identity"] for s in record(folder)["stages"]} == {n: s["identity"] for n, s in stages.items()}


def test_two_roll_backs_in_a_row(folder):
    trained, _ = walked(folder, GATE % "rollback", FALLING | {"c": 0.2}, "stages.d.init=c")
    assert trained == [("a", "model"), ("b", "a"), ("c", "a"), ("d", "a")]
    assert [d["compared_to"] for d in record(folder)["gates"]] == ["model", "a", "a", "a"]


def test_the_first_stage_rolled_back_leaves_the_model(folder):
    trained, _ = walked(folder, GATE % "rollback", FALLING | {"a": 0.1, "b": 0.5})
    assert trained == [("a", "model"), ("b", "model"), ("c", "b"), ("d", "b")]


def test_a_stop_goes_before_a_rollback(folder):
    with pytest.raises(GateShut):
        walked(folder, f"{GATE % 'rollback'}, {{benchmark: n, min_value: 50}}", FALLING)
    assert not any(stage.get("rolled_back") for stage in record(folder)["stages"])


def test_until_is_asked_too(folder):
    with pytest.raises(GateShut):
        walked(folder, GATE % "stop", FALLING, until="b")


def identities(plan):
    return {stage.name: stage.identity for stage in plan.stages}


def test_gates_are_no_part_of_what_a_stage_is(folder):
    without_any = make_plan(load_recipe(folder / "r.yaml"), Store(folder))
    assert identities(plan_of(folder, GATE % "rollback")) == identities(without_any)


def test_a_rolled_back_plan_is_that_of_a_recipe_without_the_stage(folder):
    plan = without(plan_of(folder, GATE % "rollback"), ["b"])
    skipped = identities(plan_of(folder, GATE % "rollback", "stages.b.skip=true", "stages.d.init=a"))
    assert {name: found for name, found in identities(plan).items() if name != "b"} == skipped
    assert stage_job(plan, plan.stage("d")).checkpoint == str(plan.stage("a").folder.checkpoint)
    assert without(plan, []) == plan_of(folder, GATE % "rollback")
    assert without(without(plan, ["c"]), ["b"]) == plan  # always from what was declared


def test_an_optimizer_is_inherited_from_what_is_left_of_the_chain(folder):
    inherit = "stages.d.optimizer_state=inherit"
    plan = plan_of(folder, GATE % "rollback", inherit)
    assert [stage.name for stage in plan.stages if stage.keep_optimizer] == ["a", "b"]
    assert without(plan, ["b"]).stage("d").config.optimizer_state == "inherit"
    bare = without(plan, ["a", "b"]).stage("d")
    assert (bare.parent, bare.config.optimizer_state) == ("model", "fresh")
    assert [stage.name for stage in plan_of(folder, GATE % "stop", inherit).stages if stage.keep_optimizer] == ["b"]


def test_a_reward_model_that_started_from_a_rolled_back_stage_is_another_one(folder):
    rows = [{"chosen": "a", "rejected": "b", "prompt": "q", "y": "1"}]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    text = RECIPE.replace(
        "  - {name: c, kind: sft}\n",
        "  - {name: judge, kind: reward_model, init: b, data: [{source: pairs.jsonl}], learning_rate: 1e-3, steps: 1}\n"
        "  - {name: c, kind: rl, init: a, data: [{source: rows.jsonl, columns: {x: y}}], "
        'reward: {use: "mine:score", model: "stage:judge"}, learning_rate: 1e-6, steps: 2}\n',
    )
    (folder / "r.yaml").write_text(text)
    (folder / "mine.py").write_text("def score(response, x, model): return 1.0\n")
    import sys

    sys.modules.pop("mine", None)
    plan = plan_of(folder, GATE % "rollback")
    moved = without(plan, ["b"])
    assert moved.stage("judge").parent == "a"
    assert moved.stage("c").inputs["reward"]["model"] == moved.stage("judge").identity != plan.stage("judge").identity
    assert moved.stage("c").identity != plan.stage("c").identity  # though it starts from a in both
    sys.modules.pop("mine", None)


def test_what_stands_in_place_of_a_rolled_back_stage_is_compared_with(folder):
    gates = "{benchmark: m, max_drop: 5, action: rollback}, {benchmark: n, max_drop: 5, compare_to: b, action: warn}"
    values = FALLING | {"c": {"m": 0.6, "n": 0.4}}
    walked(folder, gates, values)
    found = [(d["stage"], d["compared_to"], d["verdict"]) for d in record(folder)["gates"] if d["benchmark"] == "n"]
    assert found == [("c", "a", "warn"), ("d", "a", "pass")]


def test_nothing_is_decided_over_a_gap_in_the_chain(folder):
    plan = plan_of(folder, GATE % "rollback")
    measure(plan, {"model": 0.5, "a": 0.6, "c": 0.1})
    assert [d.stage for d in decide(plan)] == ["a"]
    measure(plan, {"b": 0.1})
    assert settled(plan)[0].rolled_back == ("b",)  # c was measured on b, and counts no longer


def test_a_gate_added_later_does_not_recompute_silently(folder):
    walked(folder, GATE % "warn", FALLING)
    with pytest.raises(CascadeError) as caught:
        go(folder, GATE % "rollback")
    text = str(caught.value)
    lines = text.splitlines()
    assert any(mentions(line, "anew", "c, d") for line in lines)
    assert any(line.strip().startswith("c: ") and mentions(line, "a", "b") for line in lines)
    assert any(mentions(line, "gate", "b", "m 30.0 ± 2.0", "30.0", "a") for line in lines)
    plan, _ = go(folder, GATE % "rollback", accept_changes=True)
    assert plan.rolled_back == ("b",)


def test_one_found_shut_only_now_does_not_either(folder):
    """The benchmark is new as well: the roll-back is seen while the run goes on."""
    alone = "evaluate.after_each_stage=[]"
    walked(folder, "", FALLING, alone)
    with pytest.raises(GateShut, match="anew.*c, d"):
        walked(folder, GATE % "rollback", FALLING)
    trained, _ = walked(folder, GATE % "rollback", FALLING, accept_changes=True)
    assert trained == [("c", "a"), ("d", "a")]


def test_taking_a_roll_back_back_is_a_change_too(folder):
    walked(folder, GATE % "rollback", FALLING)
    with pytest.raises(CascadeError, match=r"c: b .*rolled"):
        go(folder, GATE % "warn")


def test_from_asks_anew(folder):
    walked(folder, GATE % "rollback", FALLING)
    trained, _ = walked(folder, GATE % "rollback", FALLING | {"b": 0.62}, from_stage="b")
    assert trained == [("b", "a"), ("c", "b"), ("d", "b")]  # it passes this time
    assert not any(stage.get("rolled_back") for stage in record(folder)["stages"])


def test_fresh_forgets_what_gates_said(folder):
    walked(folder, GATE % "rollback", FALLING)
    trained, _ = walked(folder, GATE % "rollback", FALLING, fresh=True)
    assert trained == [("a", "model"), ("b", "a"), ("c", "a"), ("d", "a")]


def test_a_lost_measurement_undoes_no_roll_back_silently(folder):
    trained, _ = walked(folder, GATE % "rollback", FALLING)
    assert ("c", "a") in trained
    for path in (folder / "store").glob("b-*/evals/m-*.json"):
        path.unlink()
    with pytest.raises(CascadeError, match="accept-changes") as caught:
        walked(folder, GATE % "rollback", FALLING)
    assert mentions(str(caught.value), "b", "missing")
    trained, _ = walked(folder, GATE % "rollback", FALLING, accept_changes=True)
    assert trained == []  # b is measured again and rolled back as before
    assert [stage["parent"] for stage in record(folder)["stages"]] == ["model", "a", "a", "a"]

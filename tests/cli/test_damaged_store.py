"""What is shown of a store in which files are missing or damaged: all that is left, and what is wrong, by name."""

import json
import os
import shutil

import pytest

from cascade_rl.cli.main import known_run
from cascade_rl.cli.rescoring import rescore
from cascade_rl.cli.showing import show_rollouts, show_status, status_of
from cascade_rl.recipe import RewardConfig
from cascade_rl.report import load_run, write_report
from cascade_rl.report.compare import compare_runs
from cascade_rl.rollout.archive import write_rollouts
from cascade_rl.store import Store
from cascade_rl.store.inspection import inventory, stage_faults, steps_text
from cascade_rl.store.locks import hold
from cascade_rl.types import CascadeError

STEPS = 3
RECIPE = """\
name: r
model: tiny-qwen3
stages:
  - {name: rl, kind: rl, data: [{source: rows.jsonl}], reward: {use: "constant:score"}, learning_rate: 1e-6, steps: 3}
"""


def rollout(step, index):
    return {
        "step": step, "prompt_id": "p", "index": index, "prompt": "q", "messages": '[{"role": "user", "content": "q"}]',
        "thinking": False, "completion": "c", "value": float(index), "details": "{}", "error": None, "stop": "eos",
        "length": 1, "version": 0, "columns": "{}",
    }  # fmt: skip


@pytest.fixture
def root(tmp_path):
    stages = [
        {"name": name, "kind": "rl", "identity": "1", "parent": "model", "directory": f"store/{name}-1"}
        for name in ("rl", "other")
    ]
    record = {
        "name": "r", "recipe_path": str(tmp_path / "r.yaml"), "seed": 1,
        "base": {"name": "model", "model": "tiny", "identity": "0", "directory": "store/base-0"}, "stages": stages,
        "benchmarks": [{"name": "m", "identity": "e", "samples": 1}],
        "finished": [stage["directory"] for stage in stages],
    }  # fmt: skip
    store = Store(tmp_path)
    store.write_run("r", record)
    (tmp_path / "runs/r/recipe.yaml").write_text(RECIPE)
    (tmp_path / "constant.py").write_text("def score(response): return 1.0\n")
    store.stage("base", "0").begin({"name": "model", "kind": "base"}, {})
    store.stage("base", "0").finish("complete", "complete")
    for name in ("rl", "other"):
        folder = store.stage(name, "1")
        folder.begin({"name": name, "kind": "rl", "config": {"steps": STEPS}}, {})
        folder.update(inventory={"last_step": STEPS, "metrics": STEPS, "rollouts": STEPS})
        folder.finish("complete", "complete")
        folder.checkpoint.mkdir()
        (folder.checkpoint / "config.json").write_text("{}")
        (folder.checkpoint / "model.safetensors").write_bytes(b"weights")
        folder.evals.mkdir()
        result = {"benchmark": "m", "value": 0.5, "stderr": 0.1, "ci95": [0.3, 0.7], "rows": 4, "samples": 1}
        (folder.evals / "m-e.json").write_text(json.dumps(result))
        lines = [json.dumps({"step": step, "reward/mean": 0.5, "time/step_s": 1.0}) for step in range(1, STEPS + 1)]
        folder.metrics.write_text("".join(f"{line}\n" for line in lines))
        for step in range(1, STEPS + 1):
            write_rollouts(folder.rollouts, step, [rollout(step, index) for index in range(2)])
    return tmp_path


def stage_of(root, name="rl"):
    (facts,) = (stage for stage in status_of(Store(root), "r")["stages"] if stage["name"] == name)
    return facts


def folder_of(root):
    return Store(root).stage("rl", "1")


def test_a_whole_store_has_no_problems(root, capsys):
    facts = stage_of(root)
    assert facts["problems"] == []
    assert (facts["status"], facts["steps_done"], facts["evaluations"]) == ("complete", STEPS, {"m": 0.5})
    show_status(status_of(Store(root), "r"))
    assert "damaged" not in capsys.readouterr().out


def shorten(path, lines):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


DAMAGE = {
    "evaluation cut": (lambda f: (f.evals / "m-e.json").write_text('{"benchmark": "m", "va'), "m-e.json"),
    "evaluation empty": (lambda f: (f.evals / "m-e.json").write_text(""), "m-e.json"),
    "evaluation a folder": (lambda f: replace_by_folder(f.evals / "m-e.json"), "m-e.json"),
    "record cut": (lambda f: (f.path / "stage.json").write_text('{"status'), "stage.json"),
    "record empty": (lambda f: (f.path / "stage.json").write_text(""), "stage.json"),
    "record a list": (lambda f: (f.path / "stage.json").write_text("[]"), "stage.json"),
    "record null": (lambda f: (f.path / "stage.json").write_text("null"), "stage.json"),
    "record without status": (lambda f: (f.path / "stage.json").write_text("{}"), "stage.json"),
    "record gone": (lambda f: (f.path / "stage.json").unlink(), "stage.json"),
    "record a folder": (lambda f: replace_by_folder(f.path / "stage.json"), "stage.json"),
    "metrics shortened": (lambda f: shorten(f.metrics, 2), "step 3"),
    "metrics empty": (lambda f: f.metrics.write_text(""), "steps 1 to 3"),
    "metrics gone": (lambda f: f.metrics.unlink(), "steps 1 to 3"),
    "metrics a folder": (lambda f: replace_by_folder(f.metrics), "steps 1 to 3"),
    "metrics torn": (lambda f: f.metrics.write_text(f.metrics.read_text().replace('"step": 2', '"ste')), "step 2"),
    "rollouts of a step gone": (lambda f: f.rollout_files()[2].unlink(), "step 2"),
    "last rollouts gone": (lambda f: f.rollout_files()[3].unlink(), "step 3"),
    "all rollouts gone": (lambda f: shutil.rmtree(f.rollouts), "steps 1 to 3"),
    "checkpoint gone": (lambda f: shutil.rmtree(f.checkpoint), "checkpoint"),
    "configuration gone": (lambda f: (f.checkpoint / "config.json").unlink(), "config.json"),
    "weights gone": (lambda f: (f.checkpoint / "model.safetensors").unlink(), "weights"),
    "folder gone": (lambda f: shutil.rmtree(f.path), "gone"),
    "folder a file": (lambda f: (shutil.rmtree(f.path), f.path.touch()), "no folder"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_shown_and_the_rest_as_before(root, capsys, name):
    act, message = DAMAGE[name]
    act(folder_of(root))
    assert any(message in problem for problem in stage_of(root)["problems"]), stage_of(root)["problems"]
    assert stage_of(root, "other")["problems"] == []
    assert stage_of(root, "other")["evaluations"] == {"m": 0.5}
    show_status(status_of(Store(root), "r"))
    assert message in capsys.readouterr().out
    assert compare_runs(root, "r", "r")["stages"][2]["a"]["status"] == "complete"


def test_a_vanished_store_is_no_run_that_has_not_begun(root):
    shutil.rmtree(root / "store")
    for name in ("rl", "other"):
        assert stage_of(root, name)["status"] == "missing"
        assert len(stage_of(root, name)["problems"]) == 1


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"base": {}, "stages": []}', '{"base": 1, "stages": [1]}'])
def test_a_damaged_run_record_is_named(root, text):
    (root / "runs/r/run.json").write_text(text)
    for act in (lambda: status_of(Store(root), "r"), lambda: compare_runs(root, "r", "r")):
        with pytest.raises(CascadeError, match=r"run\.json"):
            act()


def test_a_saved_state_tells_what_the_metrics_lack(root):
    folder = folder_of(root)
    folder.update(status="running", inventory=None)
    (folder.state / "step-000005").mkdir(parents=True)
    assert any("steps 4 to 5" in problem for problem in stage_of(root)["problems"])


def damage_rollouts(path, how):
    if how == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "empty":
        os.truncate(path, 0)
    elif how == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        content[-6] ^= 0xFF
        path.write_bytes(content)
    elif how == "text":
        path.write_text("no parquet")
    elif how == "folder":
        path.unlink()
        path.mkdir()


HOW = ["cut", "empty", "flipped", "text", "folder"]


@pytest.mark.parametrize("how", HOW)
def test_damaged_rollouts_are_named_with_the_other_steps(root, capsys, how):
    damage_rollouts(folder_of(root).rollout_files()[3], how)
    with pytest.raises(CascadeError, match="step-000003") as caught:
        show_rollouts(Store(root), "r", "rl", None, 4, worst=False)
    assert "steps 1 to 2" in str(caught.value)
    show_rollouts(Store(root), "r", "rl", 2, 4, worst=False)
    assert "step 2" in capsys.readouterr().out


def test_rollouts_of_a_stage_that_is_gone(root):
    shutil.rmtree(folder_of(root).path)
    with pytest.raises(CascadeError, match="gone"):
        show_rollouts(Store(root), "r", "rl", None, 4, worst=False)


@pytest.mark.parametrize("how", ["cut", "other columns"])
def test_another_reward_scores_the_steps_that_can_be_read(root, capsys, how):
    path = folder_of(root).rollout_files()[1]
    if how == "cut":
        damage_rollouts(path, how)
    else:
        write_rollouts(path.parent, 1, [{"something": "else"}])
    config = RewardConfig(use="constant:score")
    steps = rescore(Store(root), "r", "rl", config, 1)
    assert [step.number for step in steps] == [2, 3]
    assert {score.value for step in steps for group in step.after for score in group.scores} == {1.0}
    assert "step-000001" in capsys.readouterr().err


def test_no_step_that_can_be_read_is_an_error(root):
    for path in folder_of(root).rollout_files().values():
        damage_rollouts(path, "cut")
    with pytest.raises(CascadeError, match="none"):
        rescore(Store(root), "r", "rl", RewardConfig(use="constant:score"), 1)


def test_steps_are_told_in_ranges():
    assert steps_text([7, 1, 2, 3, 9]) == "steps 1 to 3, 7 and 9"
    assert steps_text([4]) == "step 4"


def test_a_stage_being_computed_anew_is_not_called_gone(root):
    folder = folder_of(root)
    folder.path.rename(folder.superseded)
    (problem,) = stage_of(root)["problems"]
    assert str(folder.superseded) in problem


def test_status_tells_who_works_on_a_stage(root, capsys):
    folder = folder_of(root)
    assert stage_of(root)["used"] is None
    with hold(folder.lock, "rl", run="somebody"):
        assert str(os.getpid()) in stage_of(root)["used"]
        show_status(status_of(Store(root), "r"))
    assert "'somebody'" in capsys.readouterr().out


def test_a_folder_that_may_not_be_entered_is_told(root, monkeypatch):
    def is_dir(path):
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(type(root), "is_dir", is_dir)
    (problem,) = stage_faults(folder_of(root), finished=True)
    assert str(folder_of(root).path) in problem


def test_a_parquet_file_of_something_else_is_told(root):
    write_rollouts(folder_of(root).rollouts, 3, [{"something": "else"}])
    with pytest.raises(CascadeError, match="completion"):
        show_rollouts(Store(root), "r", "rl", None, 4, worst=False)


@pytest.mark.parametrize("details", ["", "{", "\ufffd", "[" * 100_000, '{"a": 1'])
def test_damaged_details_leave_the_rollout_to_be_seen(root, capsys, details):
    rows = [{**rollout(3, 0), "details": details}, rollout(3, 1)]
    write_rollouts(folder_of(root).rollouts, 3, rows)
    show_rollouts(Store(root), "r", "rl", 3, 4, worst=False)
    out = capsys.readouterr().out
    assert out.count("--- step 3") == 2
    assert "damaged" in out
    rescore(Store(root), "r", "rl", RewardConfig(use="constant:score"), 1)
    assert "step 3" in capsys.readouterr().err
    assert "damaged" in write_report(root, "r").read_text()


@pytest.mark.parametrize("key", ["value", "details", "prompt", "completion", "length", "stop"])
def test_a_rollout_without_a_value_is_named_by_row_and_key(root, key):
    write_rollouts(folder_of(root).rollouts, 3, [rollout(3, 0), {**rollout(3, 1), key: None}])
    with pytest.raises(CascadeError, match=f"`{key}` of row 1"):
        show_rollouts(Store(root), "r", "rl", 3, 4, worst=True)


def test_a_base_model_that_is_gone_is_named(root, capsys):
    facts = status_of(Store(root), "r")
    assert (facts["base"]["status"], facts["base"]["problems"]) == ("complete", [])
    shutil.rmtree(root / "store/base-0")
    facts = status_of(Store(root), "r")
    assert facts["base"]["status"] == "missing"
    show_status(facts)
    assert "store/base-0 is gone" in " ".join(capsys.readouterr().out.split())


def test_a_parent_of_a_stage_that_has_begun_was_complete(root):
    record = Store(root).read_run("r")
    del record["finished"]
    record["stages"][1]["parent"] = "rl"
    Store(root).write_run("r", record)
    shutil.rmtree(folder_of(root).path)
    assert stage_of(root)["status"] == "missing"
    shutil.rmtree(Store(root).stage("other", "1").path)
    assert stage_of(root)["status"] == "pending"  # nothing tells that it ever began


def as_earlier_versions(folder):
    record = folder.read()
    del record["inventory"]
    (folder.path / "stage.json").write_text(json.dumps(record))


def test_shortened_metrics_of_an_earlier_version_are_seen(root):
    folder = folder_of(root)
    as_earlier_versions(folder)
    shorten(folder.metrics, 1)
    assert any("steps 2 to 3" in problem for problem in stage_of(root)["problems"])  # from the rollouts
    shutil.rmtree(folder.rollouts)
    assert any("steps 2 to 3" in problem for problem in stage_of(root)["problems"])  # from the configuration


def test_a_stage_that_ended_early_lacks_nothing(root):
    folder = folder_of(root)
    folder.update(config={"steps": 8, "stop_when": {"reward/mean": 0.4}})
    assert stage_of(root)["problems"] == []
    as_earlier_versions(folder)
    assert stage_of(root)["problems"] == []


def test_rollouts_ahead_of_the_metrics_are_no_fault_of_a_running_stage(root):
    folder = folder_of(root)
    as_earlier_versions(folder)
    folder.update(status="running")
    shorten(folder.metrics, 2)
    record = Store(root).read_run("r")
    Store(root).write_run("r", {**record, "finished": []})
    assert stage_of(root)["problems"] == []


ODD_LINES = ['{"step": 1%s}' % ("0" * 400), '{"step": Infinity}', '{"step": NaN}', "[" * 100_000, '{"step": "1"}',
             '{"step": -1}', '{"step": true}', '{"step": 1000000}', "[]", "1"]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ODD_LINES)))
def test_a_damaged_line_of_metrics_is_skipped(root, number):
    folder = folder_of(root)
    with open(folder.metrics, "a") as file:
        file.write(ODD_LINES[number] + "\n")
    folder.trace.write_text(ODD_LINES[number] + "\n")
    assert stage_of(root)["steps_done"] == STEPS
    assert stage_of(root)["problems"] == []
    assert inventory(folder)["last_step"] == STEPS
    assert [line["step"] for line in load_run(root, "r").stages[0].metrics] == [1, 2, 3]
    write_report(root, "r")


@pytest.mark.parametrize("last_step", [10**400, 10**7, -1, True, "3", None, []])
def test_a_damaged_inventory_does_not_end_status(root, last_step):
    folder_of(root).update(inventory={"last_step": last_step, "rollouts": last_step})
    assert stage_of(root)["problems"] == []


@pytest.mark.parametrize("value", ['"text"', "[1]", "{}", "true", "NaN", "-Infinity", "1" + "0" * 400, "null"])
def test_a_metric_that_is_no_number_is_not_drawn(root, value):
    folder = folder_of(root)
    keys = ("reward/mean", "sampling/logprob_gap_mean", "time/step_s")
    line = '{"step": 2' + "".join(f', "{key}": {value}' for key in keys) + "}"
    lines = folder.metrics.read_text().splitlines()
    folder.metrics.write_text("\n".join([lines[0], line, lines[2]]) + "\n")
    assert load_run(root, "r").stages[0].series("reward/mean") == ([1, 3], [0.5, 0.5])
    write_report(root, "r")


ABSENT = object()
KEYS = ["name", "recipe_path", "base", "stages", "base.model", "base.identity", "stages[1].name", "stages[1].kind",
        "stages[1].directory", "stages[1].parent", "benchmarks[0].identity"]  # fmt: skip


@pytest.mark.parametrize("value", [ABSENT, 5, [], True], ids=["absent", "number", "list", "true"])
@pytest.mark.parametrize("key", KEYS)
def test_a_run_record_names_the_key_that_is_wrong(root, key, value):
    path = root / "runs/r/run.json"
    record = json.loads(path.read_text())
    *parts, last = key.replace("[", ".").replace("]", "").split(".")
    target = record
    for part in parts:
        target = target[int(part)] if part.isdigit() else target[part]
    if value is ABSENT:
        del target[last]
    else:
        target[last] = value
    if key == "stages" and value == []:
        return  # a run without stages is whole
    path.write_text(json.dumps(record))
    config = RewardConfig(use="constant:score")
    acts = (
        lambda: status_of(Store(root), "r"),
        lambda: compare_runs(root, "r", "r"),
        lambda: rescore(Store(root), "r", "rl", config, 1),
    )
    for act in acts:
        with pytest.raises(CascadeError, match=r"run\.json") as caught:
            act()
        assert f"`{key}`" in str(caught.value)


@pytest.mark.parametrize("key", ["finished", "gates", "benchmarks"])
@pytest.mark.parametrize("value", [5, {}, [5], None])
def test_a_run_record_names_a_list_that_is_wrong(root, key, value):
    path = root / "runs/r/run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(CascadeError, match=key):
        status_of(Store(root), "r")


@pytest.mark.parametrize(
    ("key", "value"),
    [("config", []), ("config", None), ("config", 1), ("attempts", {}), ("attempts", [1]), ("versions", []),
     ("seconds", "long"), ("seconds", 10**400), ("evaluations", {}), ("inputs", "x")],
)  # fmt: skip
def test_a_stage_record_with_another_type_is_damaged(root, key, value):
    folder_of(root).update(**{key: value})
    assert stage_of(root)["status"] == "damaged"
    assert any(f"`{key}`" in problem for problem in stage_of(root)["problems"])
    assert stage_of(root, "other")["status"] == "complete"
    assert load_run(root, "r").stages[0].status == "damaged"
    with pytest.raises(CascadeError, match=key):
        rescore(Store(root), "r", "rl", RewardConfig(use="constant:score"), 1)


def test_a_run_that_has_lost_its_record_is_not_called_unknown(root):
    (root / "runs/r/run.json").unlink()
    with pytest.raises(CascadeError, match=r"run\.json is missing"):
        known_run(Store(root), "r")
    with pytest.raises(CascadeError, match="'x'"):
        known_run(Store(root), "x")


GATE = {"stage": "rl", "benchmark": "m", "gate": 0, "verdict": "warn", "value": 1.0, "interval": 1.0, "compared_to": None,
        "compared_value": None, "compared_interval": None, "drop": None, "chance": None, "allowed": None,
        "min_value": None, "exception": None, "message": "text"}  # fmt: skip


@pytest.mark.parametrize("key", sorted(GATE.keys() - {"gate"}))
def test_a_decision_of_a_gate_names_the_key_that_is_wrong(root, key):
    record = Store(root).read_run("r")
    Store(root).write_run("r", {**record, "gates": [GATE]})
    show_status(status_of(Store(root), "r"))
    Store(root).write_run("r", {**record, "gates": [GATE, {**GATE, key: []}]})
    with pytest.raises(CascadeError, match=r"run\.json") as caught:
        load_run(root, "r")
    assert f"`gates[1].{key}`" in str(caught.value)


def test_a_result_of_a_benchmark_without_a_name_is_damaged(root):
    path = folder_of(root).evals / "m-e.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "benchmark": []}))
    assert stage_of(root)["evaluations"] == {}
    assert any("m-e.json" in problem for problem in stage_of(root)["problems"])


def test_a_run_record_without_times_has_its_page(root):
    record = Store(root).read_run("r")
    Store(root).write_run("r", {**record, "updated": None, "created": 5})
    assert write_report(root, "r").is_file()

"""A kind of stage from another package: docs/new-kind.md's as a whole run, and one that gives no answer it need not.

Whatever a kind forgets to say must not be missed by identities, ``--from``, ``check``, ``status`` or the report.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cascade_rl.cli.showing import show_plan, show_status, status_of
from cascade_rl.orchestrator.jobs import stage_job
from cascade_rl.orchestrator.plan import make_plan
from cascade_rl.orchestrator.preflight import preflight
from cascade_rl.recipe import KINDS, DistillStage, RecipeError, RewardModelStage, RlStage, load_recipe
from cascade_rl.recipe.kinds import kind_names
from cascade_rl.report import write_report
from cascade_rl.store import Store
from cascade_rl.types import CascadeError
from tests.e2e import cascade
from tests.messages import mentions

ROOT = Path(__file__).parents[1]
BARE = '''
from typing import Literal
from cascade_rl.recipe import DataSource, RewardConfig, StageConfig
from cascade_rl.recipe.kinds.base import Positions

class Bare(StageConfig):
    """A kind that gives what every kind must, and nothing else."""

    CODE = "bare_kind"
    kind: Literal["bare"] = "bare"
    size: int = 6
    critic: str | None = None
    more: list[DataSource] = []
    judge: RewardConfig | None = None

    def rows_per_step(self):
        return "size", self.size

    def longest_tokens(self):
        return Positions(("size",), self.size, "")

    def arithmetic(self, processes):
        return f"{self.size} rows on {processes} processes"

def run(context):
    raise NotImplementedError
'''
RECIPE = """name: r
model: tiny-qwen3
model_args: {hidden_size: 64, layers: 2, intermediate_size: 96, context: 256}
stages:
  - {name: first, kind: sft, data: [{source: rows.jsonl}], learning_rate: 1.0e-3, steps: 2, batch_size: 2, max_length: 64}
  - {name: second, kind: sft, init: model, data: [{source: rows.jsonl}], learning_rate: 1.0e-3, steps: 3, batch_size: 2, max_length: 64}
  - {name: own, kind: bare, data: [{source: rows.jsonl}], more: [{source: others.jsonl}], learning_rate: 1.0e-3, critic: "stage:first"}
"""


def install(folder: Path, module: str, text: str, kind: str, name: str) -> None:
    """A package in ``folder``, as pip leaves one: a module and the metadata with its entry point."""
    (folder / f"{module}.py").write_text(text)
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[cascade_rl.kinds]\n{kind} = {module}:{name}\n")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the kind ``bare``, installed, a recipe that uses it, and its rows."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("cascade_rl.recipe.kinds.KINDS", dict(KINDS))
    install(tmp_path, "bare_kind", BARE, "bare", "Bare")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "a", "response": "b"}) + "\n")
    (tmp_path / "others.jsonl").write_text(json.dumps({"prompt": "c", "response": "d"}) + "\n")
    (tmp_path / "r.yaml").write_text(RECIPE)
    yield tmp_path
    sys.modules.pop("bare_kind", None)


def plan_of(folder: Path, *overrides: str):
    return make_plan(load_recipe(folder / "r.yaml", overrides), Store(folder))


def test_its_identity_depends_on_all_that_it_reads(folder):
    plan = plan_of(folder)
    own = plan.stage("own")
    assert own.inputs["results"] == {"first": plan.stage("first").identity}
    assert own.inputs["config"]["size"] == 6
    seen = {own.identity, plan_of(folder, "stages.own.size=7").stage("own").identity}
    seen.add(plan_of(folder, "stages.first.steps=1").stage("own").identity)
    (folder / "others.jsonl").write_text(json.dumps({"prompt": "c", "response": "e"}) + "\n")
    seen.add(plan_of(folder).stage("own").identity)
    with open(folder / "bare_kind.py", "a") as code:
        code.write("CONSTANT = 1\n")
    seen.add(plan_of(folder).stage("own").identity)
    assert len(seen) == 5


def test_it_is_redone_with_the_stages_it_reads(folder):
    plan = plan_of(folder)
    assert plan.stage("own").sources == {"second", "first"}
    job = stage_job(plan, plan.stage("own"))
    assert job.stage["critic"] == str(plan.stage("first").folder.checkpoint)


def test_texts_are_no_names_of_stages():
    """A prompt, a stop text or a system prompt may begin with `stage:`; a parameter of a reward that does names one."""
    keys = {
        "name": "s",
        "data": [{"source": "x", "prompt": "stage:a"}],
        "exclude": [{"where": {"c": ["stage:d"]}}],
        "steps": 2,
        "learning_rate": 1e-4,
    }
    rewards = {"m": {"use": "a:b", "model": "stage:rm"}}
    stage = RlStage.model_validate({**keys, "rewards": rewards, "rollout": {"stop": ["stage:b"]}})
    assert stage.takes_from == {"rm"}
    moved = stage.with_results({"rm": "there"})
    assert moved.rewards["m"].params == {"model": "there"}
    assert (moved.rollout, moved.data) == (stage.rollout, stage.data)
    pairs = RewardModelStage.model_validate({**keys, "template": {"system": "stage:c"}})
    assert pairs.takes_from == set()


def test_a_domain_may_have_the_empty_name():
    """A single reward has it as well; the keys tell which is meant."""
    keys = {"name": "s", "data": [{"source": "x"}], "steps": 2, "learning_rate": 1e-4}
    single = RlStage.model_validate({**keys, "reward": {"use": "a:b"}})
    several = RlStage.model_validate({**keys, "rewards": {"": {"use": "a:b"}}})
    assert [stage.is_by_domain(stage.rewards_by_domain) for stage in (single, several)] == [False, True]
    assert [stage.keys_of(stage.rewards_by_domain[""]) for stage in (single, several)] == [("reward",), ("rewards", "")]
    with pytest.raises(LookupError):
        single.keys_of(several.rewards[""])


def test_a_teacher_that_is_a_stage_is_not_located_again():
    keys = {"name": "s", "data": [{"source": "x"}], "steps": 2, "learning_rate": 1e-4}
    teachers = {"a": {"model": "stage:first"}, "b": {"model": "./folder"}, "c": {"url": "http://host"}}
    stage = DistillStage.model_validate({**keys, "teachers": teachers})
    located = stage.with_models(lambda model: f"/at/{model}").with_results({"first": "store/first"})
    assert [each.model for each in located.teachers.values()] == ["store/first", "/at/./folder", None]
    assert stage.teachers["b"].model == "./folder"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stages.own.critic=stage:own", "stages.own.critic 'stage:own' first second"),
        ("stages.own.critic=stage:firts", "stages.own.critic first"),
        ("stages.own.more=[{source: gone.jsonl}]", "stages.own.more.0.source gone.jsonl"),
        ("stages.own.more=[{source: prompts.jsonl}]", "stages.own.more.0 prompts.jsonl"),
        ("stages.own.more=[{source: rows.jsonl, keep: 'gone:f'}]", "stages.own.more.0.keep gone"),
        ("stages.own.size=300", "stages.own.size 256"),
        ("stages.own.size=5", "stages.own.size 5 2"),
        ("stages.own.data.0.weight=1", "stages.own.data.0.weight bare"),
        ("stages.own.sizes=5", "stages.own.sizes size"),
        ("stages.own.kind=bares", "stages.own.kind bare"),
    ],
)
def test_check_finds_what_is_wrong_with_it(folder, override, words):
    (folder / "prompts.jsonl").write_text(json.dumps({"prompt": "a"}) + "\n")
    with pytest.raises(RecipeError) as found:
        preflight(load_recipe(folder / "r.yaml", [override]), 2)
    assert mentions(str(found.value), *words.split())


def test_a_reward_that_the_kind_does_not_name_is_refused(folder):
    with pytest.raises(TypeError, match="rewards_by_domain"):
        load_recipe(folder / "r.yaml", ["stages.own.judge={use: 'rewards.math:verify'}"])


def test_check_and_status_show_it(folder, capsys):
    plan = plan_of(folder)
    preflight(plan.loaded, 2)
    show_plan(plan, 2)
    assert mentions(capsys.readouterr().out, "own", "bare", "6 rows on 2 processes")
    plan.store.write_run(plan.run, plan.record())
    show_status(status_of(plan.store, "r"))
    assert mentions(capsys.readouterr().out, "own", "bare")


@pytest.mark.parametrize("installed", [True, False])
def test_the_report_shows_it_even_when_its_package_is_gone(folder, installed):
    plan = plan_of(folder)
    plan.store.write_run(plan.run, plan.record())
    own = plan.stage("own").folder.path
    own.mkdir(parents=True)
    (own / "stage.json").write_text(json.dumps({"status": "complete", "seconds": 1, "config": {}, "attempts": []}))
    (own / "metrics.jsonl").write_text("".join(json.dumps({"step": s, "loss": 1 / s}) + "\n" for s in (1, 2)))
    if not installed:
        (folder / "bare_kind-1.0.dist-info/entry_points.txt").unlink()
        from cascade_rl.recipe import kinds

        del kinds.KINDS["bare"]
    page = write_report(folder, "r").read_text()
    assert "<h2>bare</h2>" in page
    assert "bare: loss" in page


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise OSError('no disk')", "bare bare_kind OSError disk"),
        ("Bare = 5", "bare bare_kind:Bare class"),
        (BARE.replace('"bare"] = "bare"', '"bear"] = "bear"'), "bare Literal"),
        (BARE.replace('CODE = "bare_kind"', ""), "bare CODE"),
    ],
)
def test_a_package_whose_kind_cannot_be_used_is_named(folder, text, words):
    (folder / "bare_kind.py").write_text(text)
    with pytest.raises(CascadeError) as found:
        load_recipe(folder / "r.yaml")
    assert mentions(str(found.value), *words.split())


def test_it_is_among_the_kinds(folder):
    assert kind_names() == [*KINDS, "bare"]


KIND_CLASSES = {"SftStage", "RewardModelStage", "RlStage", "DistillStage", "RolloutStage", "OfflineStage", "LanguageModelStage"}  # fmt: skip
AT_MOST = 6


def kind_tests(path: Path) -> list[str]:
    """Where a module asks which kind a stage is: by class, or by comparing with the name of a kind."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            asked = KIND_CLASSES & {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)}
        elif isinstance(node, ast.Compare):
            texts = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
            asked = set(KINDS) & {text for text in texts if isinstance(text, str)}
        else:
            continue
        if asked:
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {', '.join(sorted(asked))}")
    return found


def test_hardly_anybody_asks_which_kind_a_stage_is():
    own = [ROOT / "cascade_rl/recipe/kinds", *(ROOT / f"cascade_rl/stages/{kind}.py" for kind in KINDS)]
    modules = [path for path in (ROOT / "cascade_rl").rglob("*.py") if not any(path.is_relative_to(o) for o in own)]
    found = [line for path in modules for line in kind_tests(path)]
    assert len(found) <= AT_MOST, "\n".join(found)
    assert kind_tests(ROOT / "cascade_rl/stages/rl.py"), "it finds such a test where there is one"


@pytest.mark.slow
def test_the_kind_of_the_page_runs(tmp_path):
    """The whole of docs/new-kind.md: trained, averaged, measured against the weights by hand."""
    from safetensors.torch import load_file

    module, entry = re.findall(r"```(?:python|toml)\n(.*?)```", (ROOT / "docs/new-kind.md").read_text(), re.S)
    assert 'sft_averaged = "averaging:AveragedSft"' in entry
    install(tmp_path, "averaging", module, "sft_averaged", "AveragedSft")
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{n}", "response": "b"}) + "\n" for n in range(8))
    )
    text = RECIPE.replace("kind: bare", "kind: sft_averaged").replace("more: [{source: others.jsonl}], ", "")
    text = text.replace(
        'critic: "stage:first"', 'other: "stage:first", share: 0.25, steps: 2, batch_size: 2, max_length: 64'
    )
    (tmp_path / "r.yaml").write_text(text)
    environment = {**cascade.environment(), "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "cascade_rl", str(tmp_path / "r.yaml"), "--root", str(tmp_path)]
    plain = [*command, "--set", "stages.own.share=0", "--set", "name=plain"]
    for each in (command, plain):
        done = subprocess.run(each, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr

    def weights(run: str, stage: str):
        record = json.loads((tmp_path / f"runs/{run}/run.json").read_text())
        folder = next(entry["directory"] for entry in record["stages"] if entry["name"] == stage)
        return load_file(tmp_path / folder / "checkpoint/model.safetensors")

    trained, other, mean = weights("plain", "own"), weights("r", "first"), weights("r", "own")
    assert any((trained[name] != other[name]).any() for name in mean)
    for name in mean:
        assert mean[name].allclose(0.75 * trained[name] + 0.25 * other[name], rtol=0, atol=3e-7)
    assert "Averaged fine-tuning" in (tmp_path / "runs/r/report/index.html").read_text()

"""The loop around both methods, whole stages with an engine that draws tokens by their seeds."""

import hashlib
import io
import json
import random

import pytest

from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import TemplateConfig
from cascade_rl.rollout.engine import EngineBase
from cascade_rl.stages import distill, rl
from cascade_rl.stages.checkpoints.handover import install_contract
from cascade_rl.stages.context import Context, StopFlag
from cascade_rl.store import Job
from cascade_rl.types import CascadeError, Preempted, Rollout, Stop
from tests.builders import ALONE

COMMON = {
    "data": [{"source": "cascade_rl.data.procedural:addition", "prompt": "{problem}", "args": {"rows": 12, "digits": [1, 1]}}],
    "learning_rate": 1e-3, "steps": 3, "prompts_per_step": 3, "group_size": 3, "rollout": {"max_new_tokens": 20},
    "max_logprob_gap": 1e6, "save_every": 1, "tokens_per_micro_batch": 60,
}  # fmt: skip
REWARD = {"use": "tests.e2e.digits:share", "workers": 1}


class Drawing(EngineBase):
    """Finishes one request a poll, in an order that has nothing to do with that of asking."""

    logprob_temperature = 1.0

    def submit(self, request):
        self._enlist(request)

    def clear(self):
        self._requests.clear()
        self._numbers.clear()

    def poll(self, timeout_s=0.0):
        if not self._requests:
            return []
        request = self._finished(min(self._requests, key=lambda number: self._requests[number].seed))
        draws = random.Random(request.seed)
        ids = tuple(draws.randrange(20, 300) for _ in range(draws.randint(1, 15)))
        logprobs = tuple(-5.7 - 0.3 * draws.random() for _ in ids)
        text = "1" * (len(ids) % 4) + "x" * len(ids)
        return [Rollout(request.prompt_id, request.index, ids, logprobs, text, Stop.EOS, self.version)]

    def generate(self, requests, should_abort=lambda: False):
        for request in requests:
            yield Rollout(request.prompt_id, request.index, (30, 31), (-5.8, -5.8), "", Stop.EOS, self.version)

    def load_weights(self, weights, version):
        list(weights)
        self._version = version

    def sleep(self):
        pass

    def close(self):
        pass


class Alone(Context):
    def engine(self, *_, **__):
        return Drawing()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Where a stage starts, and a teacher."""
    folder = tmp_path_factory.mktemp("tiny")
    for seed in (3, 4):
        tiny_qwen3.build(folder / str(seed), seed=seed, hidden_size=64, layers=2, intermediate_size=96)
        install_contract(folder / str(seed), TemplateConfig())
    return folder / "3", folder / "4"


@pytest.fixture
def sections(checkpoints):
    return {
        "rl": {**COMMON, "kind": "rl", "reward": REWARD},
        "distill": {**COMMON, "kind": "distill", "teacher": {"model": str(checkpoints[1])}},
    }


def run(folder, checkpoint, section, stop=False):
    """Returns (metrics without times, hash of the weights), and what was said."""
    folder.mkdir(exist_ok=True)
    if not (folder / "stage.json").exists():
        (folder / "stage.json").write_text(json.dumps({"status": "running", "attempts": [{}]}))
    job = Job.model_validate(
        {"task": "stage", "run": "r", "name": "s", "identity": "i", "folder": folder, "recipe_path": folder / "r.yaml",
         "model": "x", "checkpoint": str(checkpoint), "template": {}, "seed": 5, "dtype": "float32",
         "stage": {"name": "s", **section}}
    )  # fmt: skip
    said = io.StringIO()
    (distill if section["kind"] == "distill" else rl).run(Alone(job, ALONE, StopFlag(stop), said))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [{key: value for key, value in row.items() if not key.startswith("time")} for row in rows]
    weights = hashlib.sha256((folder / "checkpoint/model.safetensors").read_bytes()).hexdigest()
    return (metrics, weights), said.getvalue()


@pytest.mark.parametrize("kind", ["rl", "distill"])
def test_stopped_and_resumed_it_ends_in_the_same_bits(tmp_path, checkpoints, sections, kind):
    whole, _ = run(tmp_path / "whole", checkpoints[0], sections[kind])
    assert len(whole[0]) == 3
    assert all(row["grad_norm"] > 0 for row in whole[0])
    with pytest.raises(Preempted):
        run(tmp_path / "parts", checkpoints[0], sections[kind], stop=True)
    parts, said = run(tmp_path / "parts", checkpoints[0], sections[kind])
    assert "from step 0" in said
    assert parts == whole


def test_groups_learned_early_give_the_same_step(tmp_path, checkpoints, sections):
    """While others generate, or once all are there: the rows differ, and so does nothing but rounding."""
    section = {**sections["rl"], "loss": {"kl": 0.1}}
    early, _ = run(tmp_path / "early", checkpoints[0], {**section, "engine": {"placement": "dedicated"}})
    together, _ = run(
        tmp_path / "together",
        checkpoints[0],
        {**section, "updates_per_batch": 1, "dynamic_sampling": {"max_factor": 1}},
    )
    for one, other in zip(early[0], together[0], strict=True):
        for name in ("loss", "grad_norm", "policy/entropy", "loss/kl", "reward/mean", "tokens/trained"):
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("kind", ["rl", "distill"])
def test_disagreement_stops_both_methods_after_one_more_try(tmp_path, checkpoints, sections, kind):
    section = {**sections[kind], "max_logprob_gap": 0.2}
    with pytest.raises(CascadeError, match=r"step 1: .*0\.2"):
        run(tmp_path / "far", checkpoints[0], section)
    assert (tmp_path / "far/rollouts/step-000001.parquet").is_file()

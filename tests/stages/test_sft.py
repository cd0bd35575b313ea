"""The SFT stage in this process, with a model of a few thousand weights, by our trainer and by TRL's."""

import io
import json
import shutil

import pytest
import safetensors.torch
import torch

from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import TemplateConfig
from cascade_rl.stages import sft
from cascade_rl.stages.checkpoints.handover import install_contract, load_tokenizer
from cascade_rl.stages.context import Context, StopFlag
from cascade_rl.stages.saving import Saver
from cascade_rl.stages.sft_rows import training_rows
from cascade_rl.store import Job, StageFolder
from cascade_rl.training import state as states
from cascade_rl.training.ranks import Ranks
from cascade_rl.types import CascadeError
from tests.e2e import cascade

SOURCE = {
    "source": "cascade_rl.data.procedural:addition", "prompt": "{problem}",
    "args": {"rows": 6, "digits": [1, 1], "solved": True},
}  # fmt: skip
STEPS = 4
"""Of three rows each: epochs of six rows end with steps 2 and 4."""
BY_TRL = {"trainer": "trl", "steps": STEPS}
PACKED = {"trainer": "trl", "packing": True, "max_length": 128, "batch_size": 1, "epochs": 2}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96)
    install_contract(folder, TemplateConfig())
    return folder


def train(folder, checkpoint, more=None, **keys):
    """Runs the stage in ``folder`` from where it stands; returns (its folder, what it said)."""
    stage = {
        "kind": "sft", "name": "s", "data": [SOURCE], "batch_size": 3, "learning_rate": 1e-3, "warmup_steps": 3,
        "max_length": 64, "save_every": 1, **(more or {"steps": STEPS}),
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    job = Job.model_validate(
        {"task": "stage", "run": "r", "name": "s", "identity": "i", "folder": folder, "recipe_path": "r.yaml",
         "model": "x", "checkpoint": str(checkpoint), "stage": stage, "template": {}, "seed": 1, "dtype": "float32",
         **keys}
    )  # fmt: skip
    out = io.StringIO()
    context = Context(job, Ranks(0, 1, torch.device("cpu")), StopFlag(), out)
    try:
        sft.run(context)
    finally:
        context.saver.wait()  # as the process of a stage does
    return StageFolder(folder), out.getvalue()


def metrics(place):
    rows = [json.loads(line) for line in place.metrics.read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("time")} for row in rows]


@pytest.mark.parametrize(
    ("more", "steps", "states_of"),
    [({"steps": STEPS}, STEPS, (1, 2, 3, 4)), (BY_TRL, STEPS, (2, 3)), (PACKED, 6, (2, 6))],
    ids=["ours", "TRL", "TRL, packed"],
)
def test_it_goes_on_from_any_state_as_if_nothing_had_been(checkpoint, tmp_path, monkeypatch, more, steps, states_of):
    """Also from an epoch's exact end, and from the last step, where peers leave out an epoch or do nothing at all."""
    monkeypatch.setattr(states, "KEPT", steps)
    take = Saver.take
    monkeypatch.setattr(Saver, "take", lambda saver, *which: (take(saver, *which), saver.settle()))  # one for each step
    whole, _ = train(tmp_path / "whole", checkpoint, more)
    weights = (whole.checkpoint / "model.safetensors").read_bytes()
    assert [row["step"] for row in metrics(whole)] == list(range(1, steps + 1))
    for step in states_of:
        folder = tmp_path / f"from-{step}"
        shutil.copytree(states.step_folder(whole.state, step), states.step_folder(folder / "state", step))
        again, said = train(folder, checkpoint, more)
        assert cascade.resumed(said) == step
        assert metrics(again) == metrics(whole)[step:]
        assert (again.checkpoint / "model.safetensors").read_bytes() == weights, step


def test_an_optimizer_is_inherited_where_it_is_asked_for_and_rates_begin_anew(checkpoint, tmp_path):
    parent, _ = train(tmp_path / "parent", checkpoint, keep_optimizer=True)
    fresh, _ = train(tmp_path / "fresh", parent.checkpoint, keep_optimizer=True)
    heir, _ = train(tmp_path / "heir", parent.checkpoint, keep_optimizer=True, parent_optimizer=parent.optimizer)
    rates = [[row["learning_rate"] for row in metrics(place)] for place in (parent, fresh, heir)]
    assert rates[0] == rates[1] == rates[2]
    updates = [{entry["step"] for entry in torch.load(place.optimizer).values()} for place in (fresh, heir)]
    assert updates == [{STEPS}, {2 * STEPS}]


@pytest.mark.parametrize("more", [{"max_skipped_steps": 0}, {"trainer": "trl"}])
def test_it_stops_at_the_first_gradient_that_is_not_finite(checkpoint, tmp_path, more):
    """A decay of such a size that the second step's loss is no number. Without TRL `max_skipped_steps` are skipped."""
    keys = {"steps": STEPS, "learning_rate": 1.0, "weight_decay": 1e30, "warmup_steps": 0, **more}
    with pytest.raises(CascadeError, match=r"step 2: .*\bnan\b"):
        train(tmp_path / "s", checkpoint, keys)
    assert [path.name for path in (tmp_path / "s/state").iterdir()] == ["step-000001"]
    assert not (tmp_path / "s/checkpoint").exists()


def lines(tmp_path, rows, name="rows.jsonl"):
    """A file of ``rows``; as JSON, which can spell half of a surrogate pair."""
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [{"source": str(tmp_path / name)}]


def tokenised(tmp_path, checkpoint, rows, **keys):
    """(the decoded prompt and answer of each trained turn, what was said)."""
    stage = {"kind": "sft", "name": "s", "data": lines(tmp_path, rows), "batch_size": 1, "learning_rate": 1e-3,
             "steps": 1, "max_length": 2048, **keys}  # fmt: skip
    job = Job.model_validate(
        {"task": "stage", "run": "r", "name": "s", "identity": "i", "folder": tmp_path, "recipe_path": tmp_path / "r.yaml",
         "model": "x", "checkpoint": str(checkpoint), "stage": stage, "template": {}, "seed": 1, "dtype": "float32"}
    )  # fmt: skip
    out = io.StringIO()
    tokenizer, template = load_tokenizer(checkpoint, TemplateConfig())
    found = []
    for row in training_rows(
        Context(job, Ranks(0, 1, torch.device("cpu")), StopFlag(), out), job.stage_config(), template
    ):
        found.append((tokenizer.decode(row["prompt_ids"]), tokenizer.decode(row["completion_ids"])))
    return found, out.getvalue()


TOOL = {"name": "f", "description": "adds", "parameters": {}}
CALL = {"function": {"name": "f", "arguments": '{"x": 1}'}}


def test_tool_calls_reasoning_and_tools_are_trained(checkpoint, tmp_path):
    rows = [{"tools": [TOOL], "messages": [
        {"role": "user", "content": "1+?", "tool_calls": None},
        {"role": "assistant", "content": None, "thinking": "hm", "tool_calls": [CALL]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "It is 2 <|im_end|>."},
    ]}]  # fmt: skip
    ((prompt, call), (history, answer)), said = tokenised(tmp_path, checkpoint, rows)
    rendered = '<think>\nhm\n</think>\n\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call><|im_end|>'
    assert call == rendered
    assert rendered in history
    assert answer == "It is 2 < |im_end|>.<|im_end|>"
    for text in (prompt, history):
        assert '<tools>\n{"type": "function", "function": {"name": "f"' in text
    assert said == ""


def test_odd_rows_are_named_and_the_others_are_trained(checkpoint, tmp_path):
    good = {"prompt": "1+1?", "response": "2"}
    odd = [
        {**good, "response": "\ud83d"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [{"arguments": "{}"}]}]},
        {"messages": [{"role": "narrator", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {**good, "tools": [3]},
        {**good, "response": ""},
    ]
    found, said = tokenised(tmp_path, checkpoint, [good, *odd, good])
    assert [answer for _, answer in found] == ["2<|im_end|>"] * 2
    assert "6 of 8" in said
    for number in range(1, 6):
        assert f"row {number} of" in said or f"rows.jsonl:{number}:" in said
    with pytest.raises(CascadeError, match="surrogate"):
        tokenised(tmp_path, checkpoint, odd)


def test_rows_of_another_stage_with_odd_texts_exclude_nothing(checkpoint, tmp_path):
    good = {"prompt": "1+1?", "response": "2"}
    odd = {"prompt": "\udc00", "response": "2"}
    other = lines(tmp_path, [odd, {"answer": 3}, good], "other.jsonl")
    found, said = tokenised(
        tmp_path, checkpoint, [{"prompt": "2+2?", "response": "4"}, odd, good], exclude=[{"data": other}]
    )
    assert [answer for _, answer in found] == ["4<|im_end|>"]
    assert "surrogate" not in said  # it is excluded: the other file has it too
    with pytest.raises(CascadeError, match="other"):
        tokenised(tmp_path, checkpoint, [good], exclude=[{"data": lines(tmp_path, [{"answer": 3}], "other.jsonl")}])


@pytest.mark.parametrize("given", [{"do_sample": False, "temperature": 0.6}, {"early_stopping": True}])
def test_a_parents_odd_generation_settings_do_not_end_it(checkpoint, tmp_path, given):
    parent = tmp_path / "parent"
    shutil.copytree(checkpoint, parent)
    settings = json.loads((parent / "generation_config.json").read_text())
    (parent / "generation_config.json").write_text(json.dumps({**settings, **given}))
    place, _ = train(tmp_path / "s", parent, {"steps": 1})
    saved = json.loads((place.checkpoint / "generation_config.json").read_text())
    assert saved["eos_token_id"] == settings["eos_token_id"]


def weights_of(place):
    return safetensors.torch.load_file(place.checkpoint / "model.safetensors")


@pytest.mark.parametrize("budget", [16384, 40])
def test_both_trainers_learn_the_same(checkpoint, tmp_path, budget):
    """Rows of uneven lengths: loss, norm, rate, accuracy and entropy of each step, and the weights at the end."""
    uneven = {**SOURCE, "args": {"rows": 6, "digits": [1, 5], "solved": True}}
    keys = {"steps": STEPS, "data": [uneven], "max_length": 200, "weight_decay": 0.1}
    ours, _ = train(tmp_path / "ours", checkpoint, {**keys, "tokens_per_micro_batch": budget})
    theirs, _ = train(tmp_path / "trl", checkpoint, {**keys, "trainer": "trl"})
    for a, b in zip(metrics(ours), metrics(theirs), strict=True):
        for name in ("loss", "grad_norm", "token_accuracy", "policy/entropy"):
            assert a[name] == pytest.approx(b[name], rel=2e-4), (a["step"], name)
        for name in ("step", "epoch", "learning_rate", "tokens/trained"):
            assert a[name] == pytest.approx(b[name]), (a["step"], name)
    same, other = weights_of(ours), weights_of(theirs)
    assert same.keys() == other.keys()
    assert max(float((same[name] - other[name]).abs().max()) for name in same) < 2e-5


def test_held_out_rows_are_measured_and_not_trained(checkpoint, tmp_path):
    place, _ = train(tmp_path / "s", checkpoint, {"steps": STEPS, "held_out": 2, "evaluate_every": 2, "data": [SOURCE]})
    rows = metrics(place)
    assert [row["step"] for row in rows if "eval/loss" in row] == [2, 4]
    assert rows[-1]["epoch"] == pytest.approx(STEPS * 3 / 4)  # 4 of 6 rows are trained on
    assert rows[3]["eval/loss"] < rows[1]["eval/loss"]


def test_early_stop_ends_with_the_best_weights(checkpoint, tmp_path):
    """A rate at which the held-out loss gets worse: the checkpoint is that of the measurement before."""
    keys = {"learning_rate": 1.0, "warmup_steps": 0, "held_out": 2, "evaluate_every": 1, "lr_schedule": "constant"}
    stopped, said = train(tmp_path / "s", checkpoint, {**keys, "steps": 30, "early_stop": {"patience": 2}})
    losses = [row["eval/loss"] for row in metrics(stopped)]
    best = losses.index(min(losses)) + 1
    assert len(losses) == best + 2 < 30
    assert f"step {best}" in said
    whole, _ = train(tmp_path / "best", checkpoint, {**keys, "steps": best})
    assert all(torch.equal(a, b) for a, b in zip(weights_of(stopped).values(), weights_of(whole).values(), strict=True))

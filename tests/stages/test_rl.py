"""The pure parts of the RL stage, with hand-made groups."""

import io

import pytest
import torch
from cascade_rl.stages.learning import training_sequences as sequences_of
from cascade_rl.training.stage_loss import StageLoss

from cascade_rl.recipe import RlStage
from cascade_rl.rewarding.scorer import alone
from cascade_rl.stages.collect import members
from cascade_rl.stages.context import Context, StopFlag
from cascade_rl.stages.guards import refuse_errors
from cascade_rl.stages.step_metrics import rollout_metrics
from cascade_rl.store import Job
from cascade_rl.training.ranks import Ranks
from cascade_rl.types import CascadeError, Group, Prompt, Rollout, Score, Stop
from tests.e2e import cascade

ALONE = Ranks(0, 1, torch.device("cpu"))


def training_sequences(groups, config):
    return sequences_of(groups, config, StageLoss.of(config))


def config(**keys):
    base = {"name": "m", "data": [{"source": "x"}], "reward": {"use": "a:b"}, "learning_rate": 1e-6, "steps": 4}
    return RlStage.model_validate({**base, **keys})


def group(values, stops=None, errors=None, name="p", domain="", thinking=True, details=None):
    stops, errors = stops or ["eos"] * len(values), errors or [None] * len(values)
    rollouts = [
        Rollout(name, i, (10 + i, 2), (-0.1, -0.2), "t", Stop(s), 0) for i, s in enumerate(stops)
    ]  # fmt: skip
    scores = [Score(v, details or {}, e) for v, e in zip(values, errors, strict=True)]
    prompt = Prompt(name, ({"role": "user", "content": "q"},), thinking=thinking, domain=domain)
    return Group(prompt, (1, 1, 1), rollouts, scores)


def test_filtered_rollouts_leave_loss_and_statistics():
    cut = group([1.0, 0.0, 5.0], ["eos", "eos", "length"])
    assert members(cut, config(overlong="filter")) == [0, 1]
    sequences = training_sequences([cut], config(overlong="filter", advantage="group_mean"))
    assert [s.advantages.tolist() for s in sequences] == [
        [0.5, 0.5],
        [-0.5, -0.5],
    ]  # the mean is that of the two that count
    assert len(training_sequences([cut], config(overlong="penalise"))) == 3


def test_lost_rollouts_count_nowhere():
    lost = group([1.0, 0.0, 1.0], ["eos", "abort", "eos"])
    assert members(lost, config()) == [0, 2]
    assert lost.is_flat(False)
    metrics = rollout_metrics(alone, [lost, group([1.0, 0.0])], config())
    assert metrics["reward/mean"] == pytest.approx(3 / 4)
    assert metrics["tokens/rollout"] == 8


def test_failed_grading_leaves_the_batch():
    broken = group([1.0, 0.0, 0.0], errors=[None, None, "judge down"])
    assert members(broken, config()) == [0, 1]


def test_a_group_left_with_one_member_teaches_nothing():
    assert training_sequences([group([1.0, 0.0], ["eos", "length"])], config(overlong="filter")) == []


def test_sequences_come_in_prompt_and_rollout_order():
    sequences = training_sequences([group([1.0, 0.0], name="a"), group([0.0, 1.0], name="b")], config())
    assert [s.completion_ids[0] for s in sequences] == [10, 11, 10, 11]
    assert [bool(s.advantages[0] > 0) for s in sequences] == [True, False, False, True]


def test_too_many_failed_gradings_stop_with_the_first_in_full():
    broken = [group([0.0, 0.0], errors=["KeyError: 'x'\n  file.py:3", None])]
    with pytest.raises(CascadeError, match=r"(?s)1 of 2 .*max_error_rate 0\.1.*file\.py:3"):
        refuse_errors(broken, alone, config(reward={"use": "a:b", "max_error_rate": 0.1}))
    refuse_errors(broken, alone, config(reward={"use": "a:b", "max_error_rate": 0.5}))


@pytest.mark.parametrize("met_by", [0, 1])
def test_every_rank_shows_the_first_error_whichever_met_it(met_by):
    shares = [[group([0.0, 0.0])], [group([0.0, 0.0])]]
    shares[met_by] = [group([0.0, 0.0], errors=["judge down", None])]
    lenient, strict = (config(reward={"use": "a:b", "max_error_rate": bound}) for bound in (1.0, 0.1))
    sent = []
    for share in shares:
        refuse_errors(share, lambda value: sent.append(value) or [value], lenient)
    for share in shares:
        with pytest.raises(CascadeError, match=r"(?s)1 of 4 .*judge down"):
            refuse_errors(share, lambda value: sent, strict)


def test_each_domains_grader_has_its_own_bound():
    rewards = {"math": {"use": "a:b", "max_error_rate": 0.5}, "code": {"use": "c:d", "max_error_rate": 0.0}}
    mixed = config(reward=None, rewards=rewards)
    groups = [
        group([0.0, 0.0], errors=["math broke", None], domain="math"),
        group([0.0, 0.0], domain="code"),
    ]
    refuse_errors(groups, alone, mixed)
    groups[1] = group([0.0, 0.0], errors=[None, "sandbox gone"], domain="code")
    with pytest.raises(CascadeError, match=r"(?s)c:d .*1 of 2 .*sandbox gone"):
        refuse_errors(groups, alone, mixed)


def make_context(tmp_path, out=None):
    job = Job.model_validate(
        {"task": "stage", "run": "r", "name": "m", "identity": "i", "folder": tmp_path, "recipe_path": "r.yaml",
         "model": "x", "template": {}, "seed": 1, "dtype": "auto"}
    )  # fmt: skip
    return Context(job, ALONE, StopFlag(), out or io.StringIO())


def test_metrics_by_hand():
    groups = [group([1.0, 0.0], ["eos", "length"]), group([1.0, 1.0]), group([0.0, 9.0], errors=[None, "x"])]
    metrics = rollout_metrics(alone, groups, config())
    assert metrics["reward/mean"] == pytest.approx(3 / 5)
    assert metrics["reward/error_rate"] == pytest.approx(1 / 6)
    assert metrics["completions/truncated"] == pytest.approx(1 / 6)
    assert metrics["groups/zero_variance"] == pytest.approx(2 / 3)  # the third has one member left
    assert metrics["tokens/rollout"] == 12
    assert (metrics["completions/mean_length"], metrics["completions/max_length"]) == (2, 2)
    assert not any(key.startswith(("domain/", "thinking/", "instruct/")) for key in metrics)


def test_metrics_of_domains_modes_and_parts_by_hand():
    groups = [
        group([1.0, 0.0], domain="math", details={"parts": {"right": 1.0}}),
        group([0.5, 0.5], domain="chat", thinking=False, details={"parts": {"right": 0.5, "brief": 2}}),
    ]
    metrics = rollout_metrics(alone, groups, config())
    assert metrics["domain/math/reward/mean"] == 0.5
    assert metrics["domain/chat/reward/std"] == 0.0
    assert metrics["thinking/reward/std"] == 0.5
    assert metrics["instruct/completions/mean_length"] == 2
    assert metrics["reward/parts/right"] == 0.75
    assert metrics["reward/parts/brief"] == 2
    everyone = rollout_metrics(lambda mine: [mine, mine], groups, config())
    assert everyone["tokens/rollout"] == 2 * metrics["tokens/rollout"]
    assert everyone["reward/mean"] == metrics["reward/mean"]


def test_a_full_disk_pauses_saving_and_keeps_the_last_state(tmp_path, monkeypatch):
    out = io.StringIO()
    context = make_context(tmp_path, out)
    assert context.save_state(1, lambda folder: (folder / "state.pt").write_text("one"))

    def full(_folder):
        raise OSError(28, "No space left on device")

    assert not context.save_state(2, full)
    assert cascade.unsaved(out.getvalue()) == [2]
    assert "No space left" in out.getvalue()
    step, folder = context.newest_state()
    assert (step, (folder / "state.pt").read_text()) == (1, "one")


def test_only_whole_states_are_candidates_and_two_are_kept(tmp_path):
    out = io.StringIO()
    context = make_context(tmp_path, out)
    for step in (1, 2, 3):
        context.save_state(step, lambda folder, step=step: (folder / "state.pt").write_text(f"state {step}"))
    state = tmp_path / "state"
    assert sorted(p.name for p in state.iterdir()) == ["step-000002", "step-000003"]
    (state / "step-000003/state.pt").write_text("state 4")  # same size, other content
    assert context.newest_state()[0] == 2
    assert "step-000003 is damaged" in out.getvalue()
    (state / "step-000002/manifest.json").unlink()
    with pytest.raises(CascadeError, match=f"{state} .*whole"):
        context.newest_state()

"""The RL stage: what it learns from, with hand-made groups."""

import io
import re

import pytest

from cascade_rl.rewarding.scorer import alone
from cascade_rl.stages.onpolicy.guards import refuse_errors
from cascade_rl.stages.rl import Grpo
from cascade_rl.types import CascadeError
from tests.builders import group, make_context, sequences_of
from tests.builders import rl_config as config
from tests.e2e import cascade
from tests.stages.test_saving import writing


def members(of, settings):
    return of.members(settings.drops_truncated)


def metrics_of(groups, gather=alone):
    return Grpo(config()).metrics(groups, gather)


def test_filtered_rollouts_leave_loss_and_statistics():
    cut = group([1.0, 0.0, 5.0], ["eos", "eos", "length"])
    assert members(cut, config(overlong="filter")) == [0, 1]
    sequences = sequences_of([cut], config(overlong="filter", advantage="group_mean"))
    assert [s.advantages.tolist() for s in sequences] == [
        [0.5, 0.5],
        [-0.5, -0.5],
    ]  # the mean is that of the two that count
    assert len(sequences_of([cut], config(overlong="penalise"))) == 3


def test_lost_rollouts_count_nowhere():
    lost = group([1.0, 0.0, 1.0], ["eos", "abort", "eos"])
    assert members(lost, config()) == [0, 2]
    assert lost.is_flat(False)
    metrics = metrics_of([lost, group([1.0, 0.0])])
    assert metrics["reward/mean"] == pytest.approx(3 / 4)
    assert metrics["tokens/rollout"] == 8


def test_failed_grading_leaves_the_batch():
    broken = group([1.0, 0.0, 0.0], errors=[None, None, "judge down"])
    assert members(broken, config()) == [0, 1]


def test_a_group_left_with_one_member_teaches_nothing():
    assert sequences_of([group([1.0, 0.0], ["eos", "length"])], config(overlong="filter")) == []


def test_sequences_come_in_prompt_and_rollout_order():
    sequences = sequences_of([group([1.0, 0.0], name="a"), group([0.0, 1.0], name="b")], config())
    assert [s.completion_ids[0] for s in sequences] == [10, 11, 10, 11]
    assert [bool(s.advantages[0] > 0) for s in sequences] == [True, False, False, True]


def test_too_many_failed_gradings_stop_with_the_first_in_full():
    broken = [group([0.0, 0.0], errors=["KeyError: 'x'\n  file.py:3", None])]
    with pytest.raises(CascadeError, match=r"(?s)1 of 2 .*max_error_rate 0\.1.*file\.py:3"):
        refuse_errors(broken, alone, config(reward={"use": "a:b", "max_error_rate": 0.1}).rewards_by_domain)
    refuse_errors(broken, alone, config(reward={"use": "a:b", "max_error_rate": 0.5}).rewards_by_domain)


@pytest.mark.parametrize("met_by", [0, 1])
def test_every_rank_shows_the_first_error_whichever_met_it(met_by):
    shares = [[group([0.0, 0.0])], [group([0.0, 0.0])]]
    shares[met_by] = [group([0.0, 0.0], errors=["judge down", None])]
    lenient, strict = (config(reward={"use": "a:b", "max_error_rate": bound}) for bound in (1.0, 0.1))
    sent = []
    for share in shares:
        refuse_errors(share, lambda value: sent.append(value) or [value], lenient.rewards_by_domain)
    for share in shares:
        with pytest.raises(CascadeError, match=r"(?s)1 of 4 .*judge down"):
            refuse_errors(share, lambda value: sent, strict.rewards_by_domain)


def test_each_domains_grader_has_its_own_bound():
    rewards = {"math": {"use": "a:b", "max_error_rate": 0.5}, "code": {"use": "c:d", "max_error_rate": 0.0}}
    mixed = config(reward=None, rewards=rewards)
    groups = [
        group([0.0, 0.0], errors=["math broke", None], domain="math"),
        group([0.0, 0.0], domain="code"),
    ]
    refuse_errors(groups, alone, mixed.rewards_by_domain)
    groups[1] = group([0.0, 0.0], errors=[None, "sandbox gone"], domain="code")
    with pytest.raises(CascadeError, match=r"(?s)c:d .*1 of 2 .*sandbox gone"):
        refuse_errors(groups, alone, mixed.rewards_by_domain)


def test_a_full_disk_pauses_saving_and_keeps_the_last_state(tmp_path, monkeypatch):
    out = io.StringIO()
    context = make_context(tmp_path, out)
    assert context.saver.save(1, writing("one", "state.pt"))

    def full(_folder):
        raise OSError(28, "No space left on device")

    assert not context.saver.save(2, full)
    assert cascade.unsaved(out.getvalue()) == [2]
    assert "No space left" in out.getvalue()
    step, folder = context.newest_state()
    assert (step, (folder / "state.pt").read_text()) == (1, "one")


def test_only_whole_states_are_candidates_and_two_are_kept(tmp_path):
    out = io.StringIO()
    context = make_context(tmp_path, out)
    for step in (1, 2, 3):
        context.saver.save(step, writing(f"state {step}", "state.pt"))
    state = tmp_path / "state"
    assert sorted(p.name for p in state.iterdir()) == ["step-000002", "step-000003"]
    (state / "step-000003/state.pt").write_text("state 4")  # same size, other content
    assert context.newest_state()[0] == 2
    assert "step-000003 is damaged" in out.getvalue()
    (state / "step-000002/manifest.json").unlink()
    with pytest.raises(CascadeError, match=f"{state} .*whole"):
        context.newest_state()


def test_steps_that_teach_nothing_are_told_once_and_then_every_tenth():
    method, said = Grpo(config()), []
    metrics = {"groups/zero_variance": 1.0, "reward/mean": -1.0, "completions/truncated": 1.0}
    for step in range(11):
        method.warn(metrics, step, said.append)
    assert len(said) == 2
    assert re.search("step 1: .* -1, .*100%", said[0])
    assert "step 11:" in said[1]
    method.warn(metrics | {"groups/zero_variance": 0.99}, 11, said.append)
    method.warn(metrics, 12, said.append)
    assert len(said) == 3


def test_soft_overlong_takes_off_over_the_buffer():
    # at most 10 tokens, buffer 4: 7 tokens lose 1/4, 10 lose 1, 6 nothing
    settings = config(overlong="soft", overlong_buffer=4, rollout={"max_new_tokens": 10})
    before = group([1.0, 1.0, 1.0])
    lengths = [6, 7, 10]
    rollouts = [
        type(r)(r.prompt_id, r.index, (5,) * n, (0.0,) * n, r.text, r.stop, r.version)
        for r, n in zip(before.rollouts, lengths, strict=True)
    ]
    after = Grpo(settings).shape(type(before)(before.prompt, before.prompt_token_ids, rollouts, before.scores))
    assert [score.value for score in after.scores] == [1.0, 0.75, 0.0]
    assert [score.details["overlong_penalty"] for score in after.scores] == [0.0, -0.25, -1.0]
    assert Grpo(config()).shape(before) is before


def test_without_a_gradient_a_rollout_is_left_out_but_for_kl_and_entropy():
    flat, mixed = group([1.0, 1.0], name="flat"), group([1.0, 0.0], name="mixed")
    for extra, expected in (({}, 2), ({"loss": {"kl": 0.1}}, 4), ({"loss": {"entropy": 0.1}}, 4)):
        method = Grpo(config(**extra))
        sequences = sequences_of([flat, mixed], config(**extra))
        assert len(sequences) == 4  # all are in the denominator
        assert sum(map(method.has_gradient, sequences)) == expected


def test_each_token_weighs_by_the_aggregate():
    sequences = sequences_of([group([1.0, 0.0])], config(loss={"aggregate": "sequence"}))
    assert [s.weight for s in sequences] == [0.5, 0.5]  # two tokens each


def test_a_batch_wide_advantage_is_the_same_for_any_number_of_ranks():
    """Also of a rollout that is alone in its group. The batch is that of all ranks, in the order of positions."""
    settings = config(overlong="filter", advantage="cascade_rl.algorithms.reinforce_pp:advantage")
    whole = {
        0: group([1.0, 0.0]), 1: group([0.5, 0.25]), 2: group([3.0, 1.0], ["eos", "length"]), 3: group([0.0, 0.0]),
    }  # fmt: skip

    def advantages(of, gather):
        found = Grpo(settings).sequences(of, gather)
        return {position: [float(s.advantages[0]) for s in own] for position, own in found.items()}

    alone_ = advantages(whole, alone)
    assert [len(own) for own in alone_.values()] == [2, 2, 1, 2]
    sent = []
    shares = [{0: whole[0], 2: whole[2]}, {1: whole[1], 3: whole[3]}]
    for share in shares:
        advantages(share, lambda value: sent.append(value) or [value])
    assert {p: own for share in shares for p, own in advantages(share, lambda value: sent).items()} == alone_


def test_advantages_of_ones_own_see_groups_that_have_a_baseline(tmp_path):
    (tmp_path / "own_advantage.py").write_text(
        "def advantage(group, *, scale):\n    return scale * (group.rewards - group.rewards.max())\n"
    )
    settings = config(overlong="filter", advantage={"use": "own_advantage:advantage", "scale": 2.0})
    found = Grpo(settings, [tmp_path]).sequences(
        {3: group([1.0, 0.5, 9.0], ["eos", "eos", "length"]), 5: group([1.0, 1.0], ["eos", "length"])}, None
    )
    assert [s.advantages.tolist() for s in found[3]] == [[0.0, 0.0], [-1.0, -1.0]]
    assert found[5] == []

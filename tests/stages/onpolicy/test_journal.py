"""Finished rollouts survive a crash, bit for bit; nothing drawn by other weights does."""

import contextlib
import json
import os

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rl.stages.context import StopFlag
from cascade_rl.stages.onpolicy import journal as journals
from cascade_rl.stages.onpolicy.journal import Journal
from cascade_rl.types import Rollout, Score, Stop
from tests.stages.fakes import FakeEngine, FakeScorer, collector, content, feed, prompts, stage


def make(folder, rank=0, world_size=1, identity="i", say=lambda _: None):
    return Journal(folder, identity=identity, rank=rank, world_size=world_size, say=say)


def rollout(index=0, **keys):
    fields = {"prompt_id": "p", "index": index, "token_ids": (1, 2), "logprobs": (-0.1, -2.0), "text": "ab",
              "stop": Stop.EOS, "version": 3}  # fmt: skip
    return Rollout(**{**fields, **keys})


def written(folder, score=None):
    one = make(folder)
    assert one.begin(4, "w") == 0
    one.add_rollout(0, 11, rollout(0))
    one.add_rollout(0, 12, rollout(1))
    one.add_score(0, 1, score or Score(0.5, {"parts": {"right": 1.0}}))
    return folder / "step-000005-rank-0.jsonl"


def test_what_was_written_comes_back(tmp_path):
    written(tmp_path)  # and is not closed: the process died
    again = make(tmp_path)
    assert again.begin(4, "w") == 2
    assert again.kept(0, 0, 11) == journals.Kept(rollout(0), 11, None)
    assert again.kept(0, 1, 12) == journals.Kept(rollout(1), 12, Score(0.5, {"parts": {"right": 1.0}}))
    assert again.kept(0, 1, 13) is None  # another draw
    assert again.kept(1, 0, 11) is None


@settings(deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False), max_size=5),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),  # no tokenizer decodes to halves of pairs
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_floats_and_texts_come_back_bit_for_bit(tmp_path_factory, logprobs, text, value):
    folder = tmp_path_factory.mktemp("journal")
    one = make(folder)
    one.begin(0, "w")
    before = rollout(logprobs=tuple(logprobs), token_ids=tuple(range(len(logprobs))), text=text)
    one.add_rollout(0, 2**63 - 1, before)
    one.add_score(0, 0, Score(value))
    again = make(folder)
    again.begin(0, "w")
    assert again.kept(0, 0, 2**63 - 1) == journals.Kept(before, 2**63 - 1, Score(value))


@pytest.mark.parametrize(
    ("keys", "step", "weights", "what"),
    [({}, 4, "other", "weights"), ({"identity": "j"}, 4, "w", "identity"), ({"world_size": 2}, 4, "w", "world_size")],
)
def test_of_anything_else_nothing_is_taken_and_it_says_so(tmp_path, keys, step, weights, what):
    path = written(tmp_path)
    said = []
    again = make(tmp_path, say=said.append, **keys)
    assert again.begin(step, weights) == 0
    assert f"another {what}" in said[0]
    assert "step 5" in said[0]
    assert again.kept(0, 0, 11) is None
    assert len(path.read_text().splitlines()) == 1  # the header of the new one


def test_a_torn_line_and_all_after_it_is_cut_off(tmp_path):
    path = written(tmp_path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        again = make(tmp_path)
        kept = again.begin(4, "w")
        assert kept == sum(len(b"".join(lines[: n + 1])) <= cut for n in (1, 2))
        again.add_rollout(1, 99, rollout(0))
        again.close()
        third = make(tmp_path)
        assert third.begin(4, "w") == kept + 1  # what came after the tear can be read
        assert third.kept(1, 0, 99) is not None
        third.close()


def test_a_line_that_makes_no_sense_ends_what_is_believed(tmp_path):
    path = written(tmp_path)
    lines = path.read_text().splitlines()
    for foreign in ('{"position": 0}', "[]", "null", json.dumps({"position": 7, "index": 0, "score": {"value": 1.0}})):
        path.write_text("\n".join([lines[0], lines[1], foreign, lines[2]]) + "\n")
        assert make(tmp_path).begin(4, "w") == 1


def test_faults_of_the_grader_and_scores_that_would_change_are_scored_again(tmp_path):
    for number, score in enumerate(
        (Score(0.0, {}, "judge down"), Score(1.0, {"a": (1, 2)}), Score(1.0, {"a": object()}))
    ):
        folder = tmp_path / str(number)
        written(folder, score)
        again = make(folder)
        again.begin(4, "w")
        assert again.kept(0, 1, 12).score is None


def test_journals_live_until_a_state_after_their_step_is_saved(tmp_path):
    for step in (3, 4, 5):
        for rank in (0, 1):
            one = make(tmp_path / "open", rank, 2)
            one.begin(step, "w")
            one.close()
    make(tmp_path / "open").drop_before(5)
    assert sorted(path.name for path in (tmp_path / "open").iterdir()) == [
        "step-000006-rank-0.jsonl",
        "step-000006-rank-1.jsonl",
    ]
    make(tmp_path / "open").drop_before(6)
    assert not (tmp_path / "open").exists()


def test_bad_rollouts_are_discarded(tmp_path):
    path = written(tmp_path)
    one = make(tmp_path)
    one.begin(4, "w")
    one.discard(4)
    assert not path.exists()
    assert one.begin(4, "w") == 0


def test_a_full_disk_costs_the_journal_not_the_step(tmp_path, monkeypatch):
    said = []
    one = make(tmp_path, say=said.append)
    one.begin(4, "w")
    one.add_rollout(0, 1, rollout(0))
    real = os.write

    def full(descriptor, data):
        real(descriptor, bytes(data)[:10])  # the disk takes a part of it
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        one.add_rollout(0, 2, rollout(1))
        one.add_rollout(1, 3, rollout(0))
        one.add_score(1, 0, Score(1.0))
        one.sync_if_due()
        one.close()
        one.begin(5, "w")  # no room for the header either
        one.add_rollout(0, 1, rollout(0))
        one.close()
    assert len(said) == 1
    assert "No space left" in said[0]
    assert "WARNING" in said[0]
    assert make(tmp_path).begin(4, "w") == 1  # what was whole before
    one.begin(6, "w")  # room again
    one.add_rollout(0, 1, rollout(0))
    one.close()
    assert make(tmp_path).begin(6, "w") == 1


def test_a_disk_that_cannot_keep_what_it_took_is_noticed(tmp_path, monkeypatch):
    said, synced = [], []

    def failing(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(tmp_path)):  # not what other threads write
            synced.append(descriptor)
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(journals, "SYNC_EVERY_S", -1.0)
    one = make(tmp_path, say=said.append)
    one.begin(4, "w")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        one.add_rollout(0, 1, rollout(0))
        one.sync_if_due()  # in a thread
        one._disk.submit(lambda: None).result(30)
        one.sync_if_due()
    assert len(synced) == 1
    assert "Input/output error" in said[0]


def test_a_folder_that_cannot_be_made_costs_no_step(tmp_path):
    (tmp_path / "open").write_text("a file in the way")
    said = []
    one = make(tmp_path / "open", say=said.append)
    assert one.begin(0, "w") == 0
    one.add_rollout(0, 1, rollout(0))
    one.close()
    assert len(said) == 1


def value(prompt, rollout):
    return 0.0 if int(prompt.id[1:]) % 2 else float(rollout.index == 0)


class Died(BaseException):
    pass


@pytest.mark.parametrize("dynamic", [None, {"max_factor": 3}])
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_an_interrupted_step_goes_on_where_it_was(tmp_path, dynamic, how):
    """At whichever rollout: the groups are those of the undisturbed steps, and nothing that had finished is drawn, not
    in the step before either, after which no state was saved."""
    config = stage(**({"dynamic_sampling": dynamic} if dynamic else {}))
    engine = FakeEngine()
    whole = collector(engine, FakeScorer(value), config)
    expected = [content(whole.collect(step, 0).everything) for step in (0, 1)]
    total = len(engine.submitted)
    for polls in range(1, total + 1):
        folder = tmp_path / f"{polls}"
        stop, first = StopFlag(), FakeEngine()
        left = [polls]

        def dies(left=left, stop=stop):
            left[0] -= 1
            if left[0] < 0:
                stop.is_set = True
                if how == "killed":
                    raise Died

        first.before_poll = dies
        keys = {"source": feed(config, prompts(100)), "stop": stop}
        attempt(first, FakeScorer(value), config, folder, 0, keys)
        source = feed(config, prompts(100))
        second, scorer = FakeEngine(), FakeScorer(value)
        got = []
        again = make(folder)
        for step in (0, 1):
            again.begin(step, f"weights {step}")
            collect = collector(second, scorer, config, source=source, journal=again)
            got.append(content(collect.collect(step, 0).everything))
        assert got == expected
        if how == "killed":
            assert len(second.submitted) == total - polls
            assert len(scorer.scored) <= total - polls + 1  # one may not have been noted yet


def attempt(engine, scorer, config, folder, version, keys):
    journal = make(folder)
    collect = collector(engine, scorer, config, journal=journal, **keys)
    with contextlib.suppress(Died):
        for step in (0, 1):
            journal.begin(step, f"weights {step}")
            if collect.collect(step, version).aborted:
                return


def test_lost_rollouts_are_asked_for_again(tmp_path):
    journal = make(tmp_path)
    journal.begin(0, "w")
    lossy = FakeEngine(stop_of=lambda r: Stop.ABORT if r.index else Stop.EOS)
    collector(lossy, FakeScorer(value), stage(), journal=journal).collect(0, 0)
    journal.begin(0, "w")
    engine = FakeEngine()
    got = collector(engine, FakeScorer(value), stage(), journal=journal).collect(0, 0)
    assert [index for _, index in engine.submitted] == [1] * 4
    assert [len(g.rollouts) for g in got.groups] == [2] * 4


def test_rollouts_of_another_version_are_not_taken(tmp_path):
    """Weights of one content are of two versions where an update was skipped."""
    journal = make(tmp_path)
    journal.begin(0, "w")
    collector(FakeEngine(version=3), FakeScorer(value), stage(), journal=journal).collect(0, 3)
    journal.begin(0, "w")
    engine = FakeEngine(version=4)
    collector(engine, FakeScorer(value), stage(), journal=journal).collect(0, 4)
    assert len(engine.submitted) == 8


def test_the_ranks_say_how_much_was_taken_over(tmp_path):
    said = []
    for _ in range(2):
        journal = make(tmp_path)
        journal.begin(0, "w")
        collector(FakeEngine(), FakeScorer(value), stage(), journal=journal, say=said.append).collect(0, 0)
    (text,) = said
    assert "step 1: 8 rollouts" in text


def test_kept_tokens_come_back(tmp_path):
    kept = numpy.array([[1, 7], [2, -1]], numpy.int32)
    one = make(tmp_path)
    one.begin(4, "w")
    one.add_rollout(0, 11, rollout(0, kept=kept))
    one.add_rollout(0, 12, rollout(1))
    again = make(tmp_path)
    assert again.begin(4, "w") == 2
    found = again.kept(0, 0, 11).rollout.kept
    assert found.dtype == numpy.int32
    assert found.tolist() == kept.tolist()
    assert again.kept(0, 1, 12).rollout.kept is None

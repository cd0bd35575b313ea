"""Supervisors of one launch find each other through files, and never believe those of an earlier, killed launch."""

import json
import threading

import pytest

from cascade_rl.orchestrator.session import RankInfo, open_session
from cascade_rl.types import CascadeError


def place(rank, world):
    return RankInfo(rank, world, rank, "127.0.0.1")


def gather(folder, world):
    sessions = {}

    def enter(rank):
        sessions[rank] = open_session(folder, place(rank, world), patience_s=20)

    threads = [threading.Thread(target=enter, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [sessions[rank] for rank in range(world)]


def test_three_ranks_meet_and_carry_out_an_order(tmp_path):
    lead, second, third = gather(tmp_path, 3)
    assert lead.folder == second.folder == third.folder
    lead.give_order({"job": 1})
    assert second.next_order(lambda: None) == {"job": 1}
    assert third.next_order(lambda: None) == {"job": 1}
    for session, outcome in ((lead, "done"), (third, "failed")):
        session.report({"outcome": outcome})
    assert {rank: r["outcome"] for rank, r in lead.reports().items()} == {0: "done", 2: "failed"}
    assert not second.is_cancelled
    lead.cancel()
    assert second.is_cancelled


def test_a_killed_launch_leaves_nothing_that_is_believed(tmp_path):
    old = gather(tmp_path, 2)
    old[0].give_order({"job": "old"})
    new = gather(tmp_path, 2)  # the files of the first launch are all still there
    assert new[0].folder == new[1].folder != old[0].folder
    new[0].give_order({"job": "new"})
    assert new[1].next_order(lambda: None) == {"job": "new"}
    assert not old[0].folder.exists()


def test_who_does_not_come_is_named(tmp_path):
    with pytest.raises(CascadeError, match=r"ranks \[1, 2\] of 3"):
        open_session(tmp_path, place(0, 3), patience_s=0.3)
    with pytest.raises(CascadeError, match="rank 0"):
        open_session(tmp_path / "other", place(1, 2), patience_s=0.3)


def test_waiting_for_an_order_can_be_interrupted(tmp_path):
    _, follower = gather(tmp_path, 2)

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follower.next_order(stop)


def test_alone_no_files_are_waited_for(tmp_path):
    (session,) = gather(tmp_path, 1)
    session.give_order({"job": 1})
    session.report({"outcome": "done"})
    assert json.loads(next(session.folder.glob("orders/*.json")).read_text()) == {"job": 1}
    assert session.reports() == {0: {"outcome": "done"}}

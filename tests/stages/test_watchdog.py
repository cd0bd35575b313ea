"""A rank on which nothing finishes says so, and every rank shows its stacks."""

import re
import threading

from cascade_rl.stages.watchdog import PATTERN, Watchdog


def until(condition):
    """Wait for another thread; the guard is against hanging for ever."""
    done = threading.Event()
    for _ in range(2000):
        if condition():
            return
        done.wait(0.01)
    raise AssertionError("it did not happen")


def test_all_ranks_show_their_stacks_when_one_is_stuck(tmp_path, capfd):
    said = []
    with (
        Watchdog(tmp_path, 0, 0.1, said.append) as stuck,
        Watchdog(tmp_path, 1, 1e6, said.append) as waiting,
    ):
        stuck.beat("generating 3/8")
        waiting.beat("a collective")
        until(lambda: list(tmp_path.glob(PATTERN)) and said)
        waiting._timeout_s = 0.1  # its thread looks every few seconds otherwise
        shown = ""

        def seen():
            nonlocal shown
            shown += capfd.readouterr().err
            return re.search("rank 0.*generating 3/8", shown) and "Thread 0x" in shown

        until(seen)
    assert re.search("WARNING: rank 0.* 0 s.*generating 3/8", said[0])


def test_files_of_earlier_attempts_are_no_news(tmp_path, capfd):
    (tmp_path / "stall-20260101-000000-rank-0.txt").write_text("old")
    with Watchdog(tmp_path, 0, 0.2, print):
        threading.Event().wait(0.12)
    assert "=====" not in capfd.readouterr().err

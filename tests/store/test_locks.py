import contextlib
import errno
import fcntl
import json
import os
import platform
import subprocess
import sys
import threading

import pytest

from cascade_rl.store.locks import hold, hold_in_turn, hold_together
from cascade_rl.types import CascadeError

HOLDER = (
    "import sys; from pathlib import Path; from cascade_rl.store.locks import hold\n"
    "with hold(Path(sys.argv[1]), 'it', run='first'):\n    print('held', flush=True); sys.stdin.read()\n"
)


@contextlib.contextmanager
def holder(path):
    """A process that holds ``path``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with process:
        yield process
        process.kill()


def nothing():
    pass


def test_a_second_holder_is_told_who_has_it(tmp_path):
    path = tmp_path / "lock"
    with holder(path) as first:
        with pytest.raises(CascadeError, match=str(first.pid)) as caught, hold(path, "run 'x'"):
            pass
        assert "run 'x'" in str(caught.value)
        assert "'first'" in str(caught.value)
        first.kill()  # however it ends, the lock goes with it
        first.wait()
        with hold(path, "run 'x'"):
            assert str(os.getpid()) in path.read_text()
    assert path.read_text() == ""


def test_the_next_holder_waits_for_the_one_before(tmp_path):
    path, told = tmp_path / "lock", []
    with holder(path) as first:

        def on_wait(description):
            told.append(description)
            first.kill()

        with hold_in_turn(path, "second", on_wait, nothing):
            assert "second" in path.read_text()
    assert len(told) == 1
    assert "'first'" in told[0]
    assert str(first.pid) in told[0]


def test_holders_that_wait_come_one_at_a_time(tmp_path):
    path, inside, most = tmp_path / "lock", [], []

    def work(name):
        for _ in range(5):
            with hold_in_turn(path, name, lambda _: None, nothing):
                inside.append(name)
                most.append(len(inside))
                inside.remove(name)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 15


def test_a_stop_ends_the_wait(tmp_path):
    class Stopped(Exception):
        pass

    def stop():
        raise Stopped

    path = tmp_path / "lock"
    with hold(path, "it"):
        with pytest.raises(Stopped), hold_in_turn(path, "second", lambda _: None, stop):
            pass
    with hold(path, "it"):  # who gave up waiting holds nothing
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    for context in (hold(tmp_path / "lock", "it"), hold_in_turn(tmp_path / "lock", "x", lambda _: None, nothing)):
        with pytest.raises(CascadeError, match="flock") as caught, context:
            pass
        assert str(tmp_path) in str(caught.value)


def test_a_holder_that_has_not_written_its_name_yet(tmp_path):
    path = tmp_path / "lock"
    for text in ("", "{", "[]", '{"run": "x"}'):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.write(descriptor, text.encode())
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(CascadeError, match="another process"), hold(path, "it"):
            pass
        os.close(descriptor)


def test_the_first_reader_to_leave_keeps_the_note_of_the_other(tmp_path):
    path = tmp_path / "lock"
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        first.enter_context(hold_together(path, "first"))
        second.enter_context(hold_together(path, "second"))
        first.close()
        with pytest.raises(CascadeError, match="second"), hold(path, "it"):
            pass
        second.close()
    assert path.read_text() == ""


def test_a_reader_that_waits_can_be_stopped(tmp_path):
    def stop():
        raise KeyboardInterrupt

    path = tmp_path / "lock"
    with hold(path, "it"), pytest.raises(KeyboardInterrupt), hold_together(path, "reader", stop):
        pass


@contextlib.contextmanager
def noted_as(path, **note):
    """The lock ``path`` held, with another note in it than the holder's own."""
    with hold(path, "it"):
        path.write_text(json.dumps({"run": "first", "since": "then", "command": "c", **note}))
        yield


def refusal(path):
    with pytest.raises(CascadeError) as caught, hold(path, "it"):
        pass
    return str(caught.value)


def ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_living_holder_can_be_stopped_by_its_number(tmp_path):
    with hold(tmp_path / "lock", "it"):
        assert f"kill {os.getpid()}" in refusal(tmp_path / "lock")


def test_a_holder_on_another_host_is_to_be_stopped_there(tmp_path):
    path = tmp_path / "lock"
    with noted_as(path, pid=os.getpid(), host="node-7"):
        text = refusal(path)
    assert "on node-7: kill" in text
    assert f"delete {path}" in text


def test_a_holder_that_has_ended_is_not_to_be_killed(tmp_path):
    path, pid = tmp_path / "lock", ended_process()
    with noted_as(path, pid=pid, host=platform.node()):
        text = refusal(path)
    assert "kill" not in text
    assert f"fuser {path}" in text


def test_who_waits_is_told_what_can_be_done(tmp_path):
    path, told = tmp_path / "lock", []

    def stop():
        if told:
            raise KeyboardInterrupt

    with noted_as(path, pid=1, host="node-7"), pytest.raises(KeyboardInterrupt):
        with hold_in_turn(path, "second", told.append, stop):
            pass
    assert "on node-7: kill 1" in told[0]


@pytest.mark.parametrize("take", [lambda path: hold_in_turn(path, "x", print, nothing), lambda path: hold(path, "x")])
def test_a_deleted_lock_file_is_made_anew(tmp_path, take):
    """The way out where the file server keeps the lock of a host that is down."""
    path = tmp_path / "lock"
    with hold(path, "it"):
        path.unlink()
        with take(path):
            with pytest.raises(CascadeError, match="in use"), hold(path, "it"):
                pass


def test_a_waiting_run_goes_on_once_the_lock_file_is_deleted(tmp_path):
    path = tmp_path / "lock"
    with hold(path, "it"):
        with hold_in_turn(path, "second", lambda _: path.unlink(), nothing):
            assert "second" in path.read_text()
            assert "in use" in refusal(path)


def test_a_lock_file_that_is_a_folder_is_named(tmp_path):
    (tmp_path / "lock").mkdir()
    assert str(tmp_path / "lock") in refusal(tmp_path / "lock")

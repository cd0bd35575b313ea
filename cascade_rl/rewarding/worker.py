"""A worker process, below its supervisor: ``python -m cascade_rl.rewarding.worker FD PARENT_PID``.

It speaks over the socket FD, which is moved out of the way first: standard input is empty and standard output is the
parent's standard error, so nothing that a reward prints or reads can be taken for a message. Commands arrive as
pickles (the trainer is trusted); verdicts leave as JSON, so that the trainer never unpickles what a worker made up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pickle
import resource
import signal
import socket
import sys
import time
from typing import Any

from cascade_rl.processes import adopt_orphans, allow_long_integers
from cascade_rl.rewarding import process_tree
from cascade_rl.rewarding.binding import call_arguments
from cascade_rl.rewarding.loading import LoadedReward, load_reward
from cascade_rl.rewarding.records import RewardError, RewardSettings
from cascade_rl.rewarding.supervisor import supervise
from cascade_rl.rewarding.traces import short_trace
from cascade_rl.rewarding.verdict import as_score
from cascade_rl.rewarding.wire import Channel

_SPARE = bytearray(1 << 20)
"""Given back after a MemoryError, so that there is room to say so."""
_OUT_OF_THE_WAY = 100
"""Lowest number of the moved descriptor; rewards that juggle descriptors 0 to 9 never meet it."""
_MOST_ZOMBIES = 64
"""Ended children that nobody waited for, with which a worker goes on."""


def main() -> None:
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    supervise(parent, descriptor)
    adopt_orphans()  # so that what a reward started is found, counted and killed wherever it moved to
    allow_long_integers()
    for stop in (signal.SIGINT, signal.SIGTERM):
        # Sent to the whole job by a terminal or scheduler, while the trainer still finishes its step with us. A
        # handler, not SIG_IGN, because that would be inherited by programs the reward starts.
        signal.signal(stop, lambda *_: None)
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
    os.close(descriptor)
    channel = Channel(socket.socket(fileno=moved))
    with contextlib.suppress(EOFError, ConnectionError):  # the trainer has gone: nobody is left to tell
        serve(channel)


def serve(channel: Channel) -> None:
    """Load the reward, then answer calls until the other side goes (EOFError)."""
    settings, search, path = pickle.loads(channel.receive())
    sys.path[:] = list(dict.fromkeys([*(str(folder) for folder in search), *path, *sys.path]))
    _limit_resources(settings)
    try:
        loaded = load_reward(settings, search)
        loaded.get_ready()
    except MemoryError:
        text = f"reward {settings.use!r} needs more than memory_limit_mib: {settings.memory_limit_mib} to start"
        channel.send(json.dumps({"failed": text}).encode())
        return
    except BaseException as error:
        text = str(error) if isinstance(error, RewardError) else short_trace(error)
        channel.send(json.dumps({"failed": text}).encode())
        return
    channel.send(b'{"ready": true}')
    while True:
        verdict, is_fit = judge(loaded, channel.receive())
        signal.alarm(0)  # one that a reward left set would kill the next call
        channel.send(verdict)
        if not is_fit:
            return


def judge(loaded: LoadedReward, command: bytes) -> tuple[bytes, bool]:
    """The verdict on one pickled ScoreCall as JSON, and whether this process may go on. What is raised is an error."""
    settings = loaded.settings
    before_s = _computed_s()
    try:
        call = pickle.loads(command)
        score = as_score(loaded.function(**call_arguments(loaded, call)), settings.use)
        verdict = {"value": score.value, "details": score.details, "error": score.error}
        return _answer(verdict, before_s), True
    except MemoryError as error:
        # Earlier calls may have filled this process: the manager asks a fresh one before it believes this.
        _SPARE.clear()
        return _answer({"out_of_memory": short_trace(error)}, before_s), False
    except BaseException as error:  # sys.exit() in a reward, or math-verify's TimeoutException, too
        text = f"reward {settings.use} raised {short_trace(error)}"
        return _answer({"value": settings.failure, "details": {}, "error": text}, before_s), True


def _answer(verdict: dict[str, Any], before_s: float) -> bytes:
    facts = {"computed_s": _computed_s() - before_s, "is_spent": _is_spent()}
    return json.dumps({**verdict, **facts}).encode()


def _computed_s() -> float:
    """CPU time of this process and of the children it waited for."""
    waited_for = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + waited_for.ru_utime + waited_for.ru_stime


def _is_spent() -> bool:
    """Whether so many adopted children ended that a fresh process should take over. They are not waited for here: some
    may be the reward's own, which it will ask for."""
    with contextlib.suppress(ChildProcessError, AttributeError):
        any_ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return any_ended and process_tree.zombies(os.getpid()) > _MOST_ZOMBIES
    return False


def _limit_resources(settings: RewardSettings) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if settings.memory_limit_mib:
        limit, hard = settings.memory_limit_mib << 20, resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS knows the limit and refuses to set it
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    main()

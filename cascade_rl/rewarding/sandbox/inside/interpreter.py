"""The warm interpreter: ready to fork, once per test, for as long as its supervisor wants.

    python -P -s -S -c "... interpreter.main()" '{"fd": 5, "level": "namespaces", ...}'

It answers ``{"ready": ..., "has": [...]}`` or ``{"failed": ...}``, then serves requests one at a time: the limits, and
descriptors of what one test is given and of where its outputs go; back goes how it ended. It opens none of these
itself: whatever it read would stay in its memory, which the next program is a copy of.

The supervisor keeps the time: it sees in /proc what a program computes, which this interpreter cannot. When a limit is
reached it sends ``{"stop": true}``.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from . import frames, kernel, program
from .confine import Confinement
from .jail import SCRATCH, Jail, become_init

PRELOADED = (
    "abc", "array", "bisect", "cmath", "collections", "contextlib", "copy", "dataclasses", "datetime", "decimal",
    "enum", "fractions", "functools", "hashlib", "heapq", "io", "itertools", "json", "math", "numbers", "operator",
    "queue", "random", "re", "statistics", "string", "struct", "textwrap", "threading", "time", "typing",
)  # fmt: skip
_MOST_DESCRIPTORS = 4096


def main() -> None:
    setup = json.loads(sys.argv[1])
    end = socket.socket(fileno=setup["fd"])
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)

    def failed(error: Exception) -> None:
        with contextlib.suppress(OSError):
            frames.send(end, {"failed": str(error)})

    try:
        sys.path.extend(setup["path"])
        for name in (*PRELOADED, *setup["packages"]):
            importlib.import_module(name)
        base_mib = _address_space_mib()
        _offer_to_be_killed_first()
        jail = None
        if setup["level"] == "namespaces":
            jail = become_init(setup["root"], setup["readable"], setup["scratch_mib"], setup["scratch_files"], failed)
        confinement = Confinement(setup["level"], jail, setup["readable"], base_mib)
    except Exception as error:
        failed(error)
        return
    # Python's own handler would let a program interrupt its namespace's init; without one, the kernel does not
    # deliver. Where there is no namespace the supervisor's terminal must not interrupt either.
    signal.signal(signal.SIGINT, signal.SIG_DFL if jail else signal.SIG_IGN)
    for name in [name for name in sys.modules if name == "inside" or name.startswith("inside.")]:
        del sys.modules[name]  # a program that imports a file of such a name must not find ours
    gc.collect()
    gc.freeze()
    gc.disable()
    frames.send(end, {"ready": True, "has": confinement.has})
    with contextlib.suppress(EOFError, ConnectionError):
        _serve(end, confinement, jail)


def _address_space_mib() -> int:
    """Of this process. Libraries like numpy take more of it than a problem's limit may allow a program."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize() >> 20


def _offer_to_be_killed_first() -> None:
    """When the machine runs out of memory the kernel ends a program in here, not the training."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _serve(end: socket.socket, confinement: Confinement, jail: Jail | None) -> NoReturn:
    while True:
        request, descriptors = frames.receive(end)
        if "stop" in request:  # it crossed with the answer to the last test
            continue
        try:
            answer = _test(end, request, descriptors, confinement, jail)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        frames.send(end, answer)


def _test(
    end: socket.socket,
    request: Mapping[str, Any],
    descriptors: Sequence[int],
    confinement: Confinement,
    jail: Jail | None,
) -> dict[str, Any]:
    """``descriptors``: of the program, its details, standard input, output and error, the value, and the problem."""
    limits = request["limits"]
    confinement.plan(limits)
    used = _cpu_of_children()
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(request, descriptors, confinement)
    in_time = _ends_by_itself(pid, end)
    wall = time.monotonic() - begun
    if not in_time:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    if jail is not None:
        _clear(jail, confinement)
    return {
        "exit": os.waitstatus_to_exitcode(status), "in_time": in_time, "wall_s": wall,
        "cpu_s": _cpu_of_children() - used, "memory_mib": usage.ru_maxrss >> 10,
    }  # fmt: skip


def _cpu_of_children() -> float:
    """Seconds, of all that were buried: a program's own children are among them once it has been cleared away."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _become(request: Mapping[str, Any], descriptors: Sequence[int], confinement: Confinement) -> NoReturn:
    """In the fork: lose everything that is not the program's, then be the program.

    What goes wrong before the program has its first say is written to ``problem``, which the program never has open.
    """
    source, details, *streams, problem = descriptors
    mode = request["mode"]
    try:
        os.chdir(SCRATCH)
        confinement.apply(many=mode == "command")  # it may hold a descriptor where the streams go
        text, facts = (
            _content(source).decode("utf-8", "surrogateescape"),
            json.loads(_content(details)) if mode != "script" else {},
        )
        # First out of the way of the places they are to take.
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 2 * len(descriptors)) for descriptor in streams]
        problem = fcntl.fcntl(problem, fcntl.F_DUPFD_CLOEXEC, 2 * len(descriptors))
        for place, descriptor in enumerate(high):
            os.dup2(descriptor, place)
        os.closerange(4 if mode == "function" else 3, problem)
        os.closerange(problem + 1, _MOST_DESCRIPTORS)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if mode == "command":
            program.write_files(facts["files"])
            program.run_command(facts["command"], facts["environment"])
        os.close(problem)
    except MemoryError:  # the limits are too low for as much as reading the program: nothing is wrong with the sandbox
        os._exit(program.OUT_OF_MEMORY)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(problem, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    if mode == "function":
        program.run_function(text, facts["function"], facts["arguments"])
    program.run_script(text)


def _ends_by_itself(pid: int, end: socket.socket) -> bool:
    """Wait until the process ended (True; it is left to be reaped) or the supervisor says stop (False).

    Raises EOFError when the supervisor has gone.
    """
    watched = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        poll.register(end, select.POLLIN)
        if watched in dict(poll.poll()):
            return True
        frames.receive(end)
        return False
    finally:
        os.close(watched)


def _clear(jail: Jail, confinement: Confinement) -> None:
    """Whatever the program started, and whatever it wrote, is gone after this."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        while True:
            os.kill(-1, signal.SIGKILL)  # all of this namespace but its init, which is us
            os.waitpid(-1, 0)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    if jail.scratch_was_touched():
        jail.renew_scratch()
        confinement.scratch_was_renewed()


def _content(descriptor: int) -> bytes:
    """All of a file, wherever its position is: the supervisor and later tests share that."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)

"""CPU time of a process and its descendants, and the time they waited for a processor, read from /proc (Linux).

CPU time is that of living processes (``utime`` and ``stime`` in /proc/PID/stat, which include threads that have ended)
and of children that were waited for (``cutime``, ``cstime``); see proc(5). The time on a run queue is the second field
of /proc/PID/task/TID/schedstat. Kernels built without CONFIG_SCHED_INFO leave that at 0; then the threads' states alone
show whether they want a processor. Where there is no /proc, clock time stands in for CPU time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

HAS_PROC = os.path.exists("/proc/self/stat")
_HAS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")
"""Whether the kernel lists children by parent (CONFIG_PROC_CHILDREN); without that all processes are read."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_ZOMBIE, _RUNNABLE = "Z", "R"


@dataclass(frozen=True)
class Usage:
    """What was used since the watching began."""

    computed_s: float
    """CPU seconds of all threads and processes together."""
    waited_s: float
    """Seconds on a run queue, ready to run and without a processor, summed over threads."""
    threads: int
    """Living threads."""
    is_runnable: bool
    """Whether any thread runs or waits for a processor at this instant."""


@dataclass(frozen=True)
class _Process:
    pid: int
    start: int
    """With ``pid`` this names a process for good: pids are reused."""
    state: str
    own_s: float
    children_s: float
    """Of children that it waited for, and theirs."""

    @property
    def key(self) -> tuple[int, int]:
        return self.pid, self.start

    @property
    def total_s(self) -> float:
        return self.own_s + self.children_s


class ProcessTree:
    """Measures ``root`` and its descendants.

    ``from_birth``: the first ``look`` counts all that they have used so far; otherwise it is the zero of later ones.
    ``with_root=False`` leaves the root itself out.
    """

    def __init__(self, root: int, *, from_birth: bool = False, with_root: bool = True) -> None:
        self._root = root
        self._with_root = with_root
        self._counts = from_birth
        self._processes: dict[tuple[int, int], _Process] = {}
        self._waited: dict[tuple[int, int, int], float] = {}
        """Time on the run queue by pid, start and thread."""
        self._computed_s = 0.0
        self._waited_s = 0.0
        self._begun = time.monotonic()

    def look(self) -> Usage:
        """The usage until now. Members that were adopted by others since the last look are still counted."""
        if not HAS_PROC:
            return Usage(time.monotonic() - self._begun, 0.0, 1, True)
        tasks = self._members()
        processes = {process.key: process for process, _ in tasks}
        waited: dict[tuple[int, int, int], float] = {}
        states = []
        for process, threads in tasks:
            for thread in threads:
                state, seconds = _thread(process, thread, alone=len(threads) == 1)
                states.append(state)
                waited[(*process.key, thread)] = seconds
        if self._counts:
            self._computed_s += self._growth(processes)
            self._waited_s += sum(max(0.0, now - self._waited.get(key, 0.0)) for key, now in waited.items())
        self._counts = True
        self._processes, self._waited = processes, waited
        return Usage(self._computed_s, self._waited_s, len(states), _RUNNABLE in states)

    def _growth(self, now: dict[tuple[int, int], _Process]) -> float:
        """CPU seconds since the last look. Nothing is counted twice when a child's time moves to its parent."""
        before = self._processes
        new_s = sum(process.total_s for key, process in now.items() if key not in before)
        own_s = sum(process.own_s - before[key].own_s for key, process in now.items() if key in before)
        inherited_s = sum(process.children_s - before[key].children_s for key, process in now.items() if key in before)
        counted_s = sum(process.total_s for key, process in before.items() if key not in now)
        return new_s + own_s + max(0.0, inherited_s - counted_s)

    def _members(self) -> list[tuple[_Process, list[int]]]:
        """Processes with the ids of their threads."""
        by_parent = None if _HAS_CHILDREN else _children_by_parent()
        members: dict[tuple[int, int], tuple[_Process, list[int]]] = {}
        # The kernel may skip a child when its sibling ends during the reading, so those seen before are asked as well.
        waiting = [self._root, *(pid for pid, start in self._processes if _is_alive(pid, start))]
        while waiting:
            process = _read(waiting.pop())
            if process is None or process.key in members:
                continue
            threads = _threads(process.pid)
            members[process.key] = (process, threads)
            waiting += _children(process.pid, threads) if by_parent is None else by_parent.get(process.pid, [])
        return [(process, threads) for process, threads in members.values() if self._is_counted(process)]

    def _is_counted(self, process: _Process) -> bool:
        return self._with_root or process.pid != self._root


class ThreadUsage:
    """Measures one thread of this process: ``ident`` and ``native_id`` of ``threading.Thread``."""

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread.native_id or 0
        self._begun = time.monotonic()
        self._first: tuple[float, float] | None = None

    def look(self) -> Usage:
        """The usage since the first look."""
        fields = _stat_fields(f"/proc/self/task/{self._thread}/stat") if HAS_PROC else None
        if fields is None:
            return Usage(time.monotonic() - self._begun, 0.0, 1, True)
        computed_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        waited_s = _waited_s(f"/proc/self/task/{self._thread}/schedstat")
        if self._first is None:
            self._first = computed_s, waited_s
        return Usage(computed_s - self._first[0], waited_s - self._first[1], 1, fields[0] == _RUNNABLE)


def children(pid: int) -> list[int]:
    """Pids of the children of a process, zombies included."""
    if not HAS_PROC:
        return []
    return _children(pid, _threads(pid)) if _HAS_CHILDREN else _children_by_parent().get(pid, [])


def zombies(pid: int) -> int:
    """How many children of a process have ended and were not waited for."""
    found = (_read(child) for child in children(pid))
    return sum(process is not None and process.state == _ZOMBIE for process in found)


def descendants(root: int) -> list[tuple[int, int]]:
    """Pids below ``root``, each with its start time, to be given to ``kill``."""
    if not HAS_PROC:
        return []
    return [process.key for process, _ in ProcessTree(root, with_root=False)._members()]


def kill(processes: Sequence[tuple[int, int]]) -> None:
    """SIGKILL to those of ``processes`` that still live. A pid that was given to another process is left alone."""
    for pid, start in processes:
        with contextlib.suppress(OSError, AttributeError):  # it has gone, or is not ours to end
            handle = os.pidfd_open(pid)
            try:
                if _is_alive(pid, start):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


def _is_alive(pid: int, start: int) -> bool:
    process = _read(pid)
    return process is not None and process.start == start


def _read(pid: int) -> _Process | None:
    fields = _stat_fields(f"/proc/{pid}/stat")
    if fields is None:
        return None
    own, of_children = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return _Process(pid, int(fields[19]), fields[0], own / _TICKS_PER_S, of_children / _TICKS_PER_S)


def _stat_fields(path: str) -> list[str] | None:
    """From the state on: the name before it may hold spaces and brackets."""
    text = _text(path)
    return text.rpartition(")")[2].split() if text else None


def _thread(process: _Process, thread: int, *, alone: bool) -> tuple[str, float]:
    """A thread's state and its time on the run queue."""
    state = process.state
    if not alone and (fields := _stat_fields(f"/proc/{process.pid}/task/{thread}/stat")):
        state = fields[0]
    return state, _waited_s(f"/proc/{process.pid}/task/{thread}/schedstat")


def _waited_s(path: str) -> float:
    fields = _text(path).split()
    return int(fields[1]) * 1e-9 if len(fields) > 1 else 0.0


def _threads(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    return []


def _children(pid: int, threads: Sequence[int]) -> list[int]:
    return [int(name) for thread in threads for name in _text(f"/proc/{pid}/task/{thread}/children").split()]


def _children_by_parent() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat_fields(f"/proc/{name}/stat")):
            found.setdefault(int(fields[1]), []).append(int(name))
    return found


def _text(path: str) -> str:
    """The content of a file of /proc; empty when its process has gone."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read().decode(errors="replace")
    return ""

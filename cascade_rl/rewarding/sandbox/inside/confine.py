"""What every forked program loses before its first line runs. None of it can be taken back."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import filters, kernel
from .jail import SCRATCH, Jail

_NOBODY = 65_534
_FIRST_STRANGER = 1_999_100_000
"""Of a range of identities that are nobody's, one for each interpreter: then a limit counts one program's threads."""
_ROOM_FOR_THREADS = 2048
"""Where a program shares its identity with others, whose processes count: beyond what those have at start."""
THREAD_STACKS_MIB = 1024
"""Address space beyond the memory limit that a program may reserve for the stacks of its threads."""
_DEVICES = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"]


class Confinement:
    """Applied in each fork. ``jail``: the namespaces around it, or None where the kernel has none to give; then a
    program may start no processes, signal nobody, and write nowhere."""

    def __init__(self, level: str, jail: Jail | None, readable: Sequence[str], base_mib: int) -> None:
        """``base_mib``: the interpreter's own address space, which is not counted against a program.

        Raises OSError when the kernel refuses what ``level`` promises.
        """
        self._level, self._jail, self._readable, self._base_mib = level, jail, list(readable), base_mib
        self._ruleset: int | None = None
        self._interpreter = os.getpid()
        self._becomes = None
        if jail is None and level != "limits" and os.geteuid() == 0 and _is_open_to_all([os.__file__, *readable]):
            self._becomes = _free_identity()
        self._others = _tasks_of(os.geteuid()) if jail is None else 0
        self._limits: dict[str, Any] = {}
        self._planned: Planned = []
        self.has: list[str] = ["rlimits"]
        """The means in use, strongest first."""
        if level == "limits":
            return
        if not filters.is_supported():
            raise OSError(f"no filter of system calls for {kernel.MACHINE}")
        self._filters = {many: filters.Filter(filters.instructions(many)) for many in (False, True)}
        self.has.insert(0, "seccomp")
        if kernel.landlock_version():
            self._make_ruleset()
            self.has.insert(0, f"landlock {kernel.landlock_version()}")
        elif jail is None:
            raise OSError("this kernel has no Landlock")
        if jail is not None:
            self.has.insert(0, "namespaces")
        elif os.geteuid() == 0 and self._becomes is None:
            self.has.append("root's number without root's powers (the interpreter's folder is closed to others)")

    def scratch_was_renewed(self) -> None:
        """Rules name folders, not paths: a new scratch folder needs a new rule."""
        if self._ruleset is not None:
            os.close(self._ruleset)
            self._make_ruleset()

    def _make_ruleset(self) -> None:
        if self._jail is None:
            self._ruleset = kernel.landlock_ruleset(self._readable, [], _DEVICES)
        else:
            self._ruleset = kernel.landlock_ruleset(["/"], [SCRATCH], _DEVICES)

    def plan(self, limits: Mapping[str, Any]) -> None:
        """Before the fork: what is worked out here costs nothing in it, where every page touched is copied first."""
        if limits != self._limits:
            self._limits = dict(limits)
            self._planned = plan_limits(limits, self._base_mib, self._most_tasks(limits["processes"]))

    def apply(self, many: bool) -> None:
        """Bind this process to the limits that were planned. ``many``: it may start others.

        Raises OSError: then it must not run anything.
        """
        os.setsid()
        limit_resources(self._planned)
        if self._level == "limits":
            return
        if self._jail is None:
            if self._becomes is not None:
                _become(self._becomes)
            # It has left the interpreter's group, and nothing else would end it when the interpreter is killed.
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self._interpreter:
                raise OSError("the interpreter has gone")
        elif self._jail.program_id is not None:
            os.setresgid(*[self._jail.program_id] * 3)
            os.setresuid(*[self._jail.program_id] * 3)
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        if self._ruleset is not None:
            kernel.landlock_restrict(self._ruleset)
        if self._jail is None:
            filters.Filter(filters.instructions(many=False, alone=os.getpid())).install()
        else:
            self._filters[many].install()

    def _most_tasks(self, processes: int) -> int:
        """The kernel counts tasks by identity: here only the program and, perhaps, the interpreter have this one..."""
        if self._jail is not None or self._becomes not in (None, _NOBODY):
            return processes + 1
        return (
            self._others + _ROOM_FOR_THREADS
        )  # ...and here it is shared with processes that have nothing to do with it


def _become(identity: int) -> None:
    os.setgroups([])
    os.setresgid(identity, identity, identity)
    os.setresuid(identity, identity, identity)


def _free_identity() -> int:
    """One that this machine lets root take, for this interpreter's programs alone; else nobody's."""
    wanted = _FIRST_STRANGER + os.getpid()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            _become(wanted)
            os._exit(0)
        os._exit(1)
    return wanted if os.waitpid(child, 0)[1] == 0 else _NOBODY


def _tasks_of(identity: int) -> int:
    """How many processes and threads somebody has."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == identity:
                    count += len(os.listdir(f"/proc/{name}/task"))
    return count


def _is_open_to_all(paths: Sequence[str]) -> bool:
    """Whether anybody can get to all of these, by the modes of the folders above them."""
    above = {parent for path in paths if os.path.exists(path) for parent in _folders_above(os.path.realpath(path))}
    return all(os.stat(folder).st_mode & 0o001 for folder in above)


def _folders_above(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


Planned = list[tuple[int, tuple[int, int]]]
"""Limits as ``setrlimit`` takes them."""


def plan_limits(limits: Mapping[str, Any], base_mib: int, most_tasks: int) -> Planned:
    cpu = max(1, math.ceil(limits["cpu_s"]))
    memory = (base_mib + limits["memory_mib"]) << 20
    wanted = {
        "RLIMIT_CPU": (cpu, cpu + 1),  # the first can be caught, the second cannot
        "RLIMIT_AS": (memory, memory + (THREAD_STACKS_MIB << 20)),  # the second: see program.stack_size
        "RLIMIT_FSIZE": limits["file_mib"] << 20,
        "RLIMIT_NOFILE": 256,
        # Not 0: where crashes are piped to a handler, which runs outside, only the value of 1 stops that (core(5)).
        "RLIMIT_CORE": 1,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_NPROC": most_tasks,
    }
    planned = []
    for name, value in wanted.items():
        kind = getattr(resource, name)
        soft, top = value if isinstance(value, tuple) else (value, value)
        before = resource.getrlimit(kind)[1]
        if before != resource.RLIM_INFINITY:
            soft, top = min(soft, before), min(top, before)
        planned.append((kind, (soft, top)))
    return planned


def limit_resources(planned: Planned) -> None:
    """Bind this process to what ``plan_limits`` gave."""
    for kind, pair in planned:
        resource.setrlimit(kind, pair)

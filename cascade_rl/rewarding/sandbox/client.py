"""The supervisor's side: a sandbox as an object to ask. It alone ever holds expected outputs.

    Sandbox.run(request, limits) ──socket──► warm interpreter ──fork──► the program, confined
        │      ◄──── how it ended ───────────────┘                          │
        └── files of memory, made for one test: what it is given, its outputs ┘

The interpreter between passes these files' descriptors on and reads none of them: a program inherits its memory, and
must not find in it what other programs were, were given or put out.

An interpreter that dies or falls silent is replaced, and the test asked once more of the new one. A second loss is the
test's own doing ("error"), unless a program that does nothing is lost as well: then it is a SandboxError.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cascade_rl.rewarding import process_tree
from cascade_rl.rewarding.deadline import START_COMPUTING_S, Deadline
from cascade_rl.rewarding.process_tree import ProcessTree
from cascade_rl.rewarding.sandbox.inside import frames
from cascade_rl.rewarding.sandbox.records import LEVELS, Limits, Outcome, Request, SandboxError, script

CLEARING_S = 15.0
"""Of computing, for clearing away what a test left."""
RECYCLE_AFTER = 20_000
"""Tests by one interpreter."""
_HERE = Path(__file__).parent
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
_ANSWER = {"exit": int, "in_time": bool, "wall_s": float, "cpu_s": float, "memory_mib": int}
_LOST = (TimeoutError, EOFError, OSError, ValueError, KeyError, TypeError)


class Sandbox:
    """A warm interpreter that runs programs one at a time. A context manager; not for several threads.

    ``require``: the least of LEVELS to accept. ``packages``: top-level packages that programs may import besides the
    standard library (``numpy``); they are loaded beforehand.
    """

    def __init__(
        self, require: str = "landlock", packages: Sequence[str] = (), scratch_mib: int = 32, scratch_files: int = 2000
    ) -> None:
        """Raises SandboxError when this machine gives less than ``require``, saying what it refused."""
        if require not in LEVELS:
            raise SandboxError(f"require: must be one of {', '.join(LEVELS)}, not {require!r}")
        if not sys.platform.startswith("linux"):
            raise SandboxError("the sandbox needs Linux")
        self._setup: dict[str, Any] = {
            "path": package_places(packages),
            "packages": list(packages),
            "readable": readable_paths(packages),
            "scratch_mib": scratch_mib,
            "scratch_files": scratch_files,
        }
        self._require = require
        self._level = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0
        """The process that programs are forked from: the interpreter, or the one below it that is in the namespaces."""
        self._program: tuple[bytes, int] | None = None
        """The last program and its file, for its next test."""
        self._tests = 0
        self.has: tuple[str, ...] = ()
        """The means of isolation in use, strongest first."""
        self.refused: tuple[str, ...] = ()
        """What this machine would not give, and why."""
        self._start_best()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def level(self) -> str:
        return self._level

    def describe(self) -> str:
        """One line: what isolates programs here, and what is missing."""
        missing = f"; not available: {'; '.join(self.refused)}" if self.refused else ""
        return f"sandbox: {', '.join(self.has)}{missing}"

    def environment(self) -> dict[str, str]:
        """For commands: programs of this machine and this interpreter are found, and the packages of the sandbox."""
        return {
            "PATH": os.pathsep.join([os.path.dirname(interpreter_path()), "/usr/local/bin", "/usr/bin", "/bin"]),
            "PYTHONPATH": os.pathsep.join(self._setup["path"]),
            "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", "HOME": "/tmp", "LC_ALL": "C.UTF-8",
        }  # fmt: skip

    def run(self, request: Request, limits: Limits = Limits()) -> Outcome:  # noqa: B008  (frozen)
        """How the program of ``request`` fared. Raises SandboxError when the sandbox itself is broken."""
        if request.mode == "command" and self._level != "namespaces":
            raise SandboxError(f"commands need a sandbox with namespaces; this machine gives {self._level}")
        if self._tests >= RECYCLE_AFTER:
            self._restart()
        for _ in range(2):
            with contextlib.suppress(*_LOST):
                return self._ask(request, limits)
            self._restart()
        try:
            self._ask(script(""), Limits())
        except _LOST as error:
            self._restart()
            raise SandboxError(f"the sandbox breaks down on an empty program: {error!r}") from None
        return Outcome("error", stderr=b"the sandbox was lost twice over this test")

    def close(self) -> None:
        """End the interpreter and everything in it."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._end.close()
        if self._program is not None:
            os.close(self._program[1])
            self._program = None

    def _ask(self, request: Request, limits: Limits) -> Outcome:
        details = json.dumps(dict(request.facts)).encode() if request.facts else b""
        with files_of([details, request.stdin], ("stdout", "stderr", "value", "problem")) as files:
            header = {"mode": request.mode, "limits": limits.as_sent()}
            frames.send(self._end, header, [self._file_of(request.program), *files])
            blocked_s = self._keep_time(limits)
            answer, unasked = frames.receive(self._end, self._deadline(CLEARING_S))
            for descriptor in unasked:
                os.close(descriptor)
            ended = {key: kind(answer[key]) for key, kind in _ANSWER.items()}
            stdout, stderr, value, problem = files[2:]
            most = (limits.output_kib << 10) + 1
            outputs = {"stdout": head(stdout, most), "stderr": tail(stderr), "value": head(value, most)}
            said = tail(problem)
        self._tests += 1
        if said:
            raise SandboxError(f"the sandbox cannot start a program: {said.decode(errors='replace')}")
        return outcome_of({**ended, "blocked_s": blocked_s}, outputs, limits)

    def _keep_time(self, limits: Limits) -> float:
        """Wait for the answer; have the program stopped at its limits. Returns for how long it was blocked."""
        program = ProcessTree(self._init, from_birth=True, with_root=False)
        deadline = Deadline(program, limits.cpu_s, limits.blocked_s, is_new=True, closely=True)
        try:
            deadline.wait(self._end.fileno(), select.POLLIN)
        except TimeoutError:
            frames.send(self._end, {"stop": True})
        return deadline.blocked_s

    def _deadline(self, computing_s: float, *, is_new: bool = False) -> Deadline:
        """For the interpreter itself."""
        assert self._process is not None
        return Deadline(ProcessTree(self._process.pid, from_birth=is_new), computing_s, is_new=is_new)

    def _file_of(self, program: bytes) -> int:
        if self._program is None or self._program[0] != program:
            if self._program is not None:
                os.close(self._program[1])
                self._program = None
            self._program = (program, _sealed(program))
        return self._program[1]

    # --- Starting ----------------------------------------------------------------------------------------------------

    def _start_best(self) -> None:
        refused = []
        for level in LEVELS[: LEVELS.index(self._require) + 1]:
            if level == "limits" and self._require != "limits":
                break
            try:
                self._start(level)
            except SandboxError as error:
                refused.append(f"{level} ({error})")
                continue
            self.refused = tuple(refused)
            return
        advice = "" if self._require == "limits" else _advice(self._require)
        raise SandboxError(f"this machine gives no sandbox with {self._require}: {'; '.join(refused)}.{advice}")

    def _restart(self) -> None:
        self.close()
        self._start(self._level)

    def _start(self, level: str) -> None:
        ours, theirs = socket.socketpair()
        root = tempfile.mkdtemp(prefix="cascade-sandbox-")
        setup = {**self._setup, "level": level, "fd": theirs.fileno(), "root": root}
        try:
            with theirs:
                self._process = subprocess.Popen(
                    # As -I, but for the seed of hashes: a program that depends on the order of a set must get the
                    # same verdict from every worker.
                    [
                        interpreter_path(),
                        "-P",
                        "-s",
                        "-S",
                        "-c",
                        start_code(str(_HERE), "interpreter"),
                        json.dumps(setup),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"},
                    cwd="/",
                    start_new_session=True,
                    preexec_fn=raise_stack_limit,
                )
            self._end = ours
            try:
                answer, _ = frames.receive(ours, self._deadline(START_COMPUTING_S, is_new=True))
            except _LOST as error:
                self.close()
                raise SandboxError(f"the interpreter died or hung while starting: {error!r}") from None
            if "failed" in answer:
                self.close()
                raise SandboxError(str(answer["failed"]))
        except OSError as error:
            ours.close()
            raise SandboxError(f"no process for the sandbox: {error}") from None
        finally:
            shutil.rmtree(root, ignore_errors=True)  # the mount on it lives in another namespace
        self._level, self.has = level, tuple(answer["has"])
        inits = process_tree.children(self._process.pid) if level == "namespaces" else []
        self._init = inits[0] if inits else self._process.pid
        self._tests = 0


STACK_MIB = 1024
"""Of the main thread's stack, as much as the judges of competitions give. Pages of it that a program does not use cost
nothing, and those it uses count as its memory."""


def raise_stack_limit() -> None:
    """For ``preexec_fn``: the kernel lays out memory around the stack when a program starts, not when limits change."""
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    wanted = STACK_MIB << 20
    resource.setrlimit(resource.RLIMIT_STACK, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _advice(require: str) -> str:
    weaker = LEVELS[LEVELS.index(require) + 1]
    wall = "which is weaker" if weaker == "landlock" else "which is no wall at all: only for programs you trust"
    return f" Allow user namespaces on it, or accept `require: {weaker}`, {wall}"


def outcome_of(ended: dict[str, Any], outputs: dict[str, bytes], limits: Limits) -> Outcome:
    return Outcome(
        _status_of(ended, outputs, limits), outputs["stdout"], outputs["stderr"], outputs["value"],
        ended["exit"], ended["cpu_s"], ended["wall_s"], ended["blocked_s"], ended["memory_mib"],
    )  # fmt: skip


def _status_of(ended: dict[str, Any], outputs: dict[str, bytes], limits: Limits) -> str:
    code = ended["exit"]
    if not ended["in_time"] or ended["cpu_s"] > limits.cpu_s or code == -signal.SIGXCPU:
        return "time"
    if max(len(outputs["stdout"]), len(outputs["value"])) > limits.output_kib << 10:
        return "output"
    if code == 0:
        return "ok"
    return "memory" if code == 99 else "error"


@contextlib.contextmanager
def files_of(given: Sequence[bytes], names: Sequence[str]) -> Iterator[list[int]]:
    """Files in memory: of what is ``given``, then empty ones. Gone afterwards."""
    with contextlib.ExitStack() as closing:
        files = []
        for content in given:
            files.append(_sealed(content))
            closing.callback(os.close, files[-1])
        for name in names:
            files.append(os.memfd_create(name, os.MFD_CLOEXEC))
            closing.callback(os.close, files[-1])
            # Several writers at once must not overwrite each other, which these files alone do not see to.
            fcntl.fcntl(files[-1], fcntl.F_SETFL, os.O_APPEND)
        yield files


def _sealed(content: bytes) -> int:
    """A descriptor to read ``content`` from, which nobody can change."""
    descriptor = os.memfd_create("given", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def head(descriptor: int, most: int) -> bytes:
    return os.pread(descriptor, min(most, os.fstat(descriptor).st_size), 0)


def tail(descriptor: int, most: int = 4096) -> bytes:
    return os.pread(descriptor, most, max(0, os.fstat(descriptor).st_size - most))


def start_code(folder: str, module: str, places: Sequence[str] = ()) -> str:
    """For ``python -c``: the ``main`` of a module of ``inside``, in ``folder``; ``places`` join the path for good."""
    return (
        f"import sys; sys.path.insert(0, {folder!r}); from inside import {module}; "
        f"sys.path[:1] = []; sys.path += {list(places)!r}; {module}.main()"
    )


def interpreter_path() -> str:
    """Not the link in a virtual environment: that one's folder may be closed to others."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def readable_paths(packages: Sequence[str]) -> list[str]:
    """What programs may read: the system's libraries and programs, this interpreter, and ``packages``."""
    places = [*_SYSTEM, os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix)]
    return [*places, *_package_folders(packages)]


def package_places(packages: Sequence[str]) -> list[str]:
    """Folders to import ``packages`` from. Raises SandboxError for one that is not installed."""
    return list(dict.fromkeys(str(_origin(name).parent) for name in packages))


def _package_folders(packages: Sequence[str]) -> list[str]:
    """What of these folders is shown: the packages themselves and the libraries wheels put beside them."""
    shown = []
    for name in packages:
        origin = _origin(name)
        shown += [str(origin), *(str(path) for path in origin.parent.glob(f"{name}.libs"))]
    return shown


def _origin(name: str) -> Path:
    import importlib.util

    found = importlib.util.find_spec(name) if name.isidentifier() else None
    if found is None or not found.origin:
        raise SandboxError(f"packages: {name!r} is not an installed package")
    origin = Path(found.origin)
    return origin.parent if found.submodule_search_locations else origin

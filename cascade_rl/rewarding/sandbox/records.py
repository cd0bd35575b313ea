"""What goes into the sandbox and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cascade_rl.types import CascadeError

LEVELS = ("namespaces", "landlock", "limits")
"""Strongest first.

``namespaces``: its own world of processes, network, mounts and identities, with a system-call filter, Landlock and
resource limits besides. ``landlock``: the filter, Landlock and limits around a single process that can write nowhere.
Contents are closed to it there, but not whether a path or a process exists, nor a file's size and owner.
``limits``: resource limits only; this is no wall, and is used only where a recipe asks for it by name.

None of them hides time: how long another takes, what the processor's caches hold. All programs of one interpreter have
the same layout of memory. What memory one worker may take is ``Limits.memory_mib``, for a command as often as it has
processes; no cgroup is used.
"""


class SandboxError(CascadeError):
    """The sandbox cannot be had, or broke down: never the program's fault."""


@dataclass(frozen=True)
class Limits:
    """For one test. What passes a limit has failed."""

    cpu_s: float = 10.0
    """CPU time of all its threads and processes together, so that a busy machine does not decide verdicts. The kernel
    ends each process that reaches it; what they reach together is looked at at intervals."""
    blocked_s: float | None = None
    """Clock time in which none of them runs or waits for a processor; None is five times ``cpu_s`` and 10 s."""
    memory_mib: int = 1024
    """Address space that each process may take, beyond what the interpreter has before the program begins. A script or
    function may reserve up to 1 GiB more for the stacks of its threads by ``threading.stack_size``."""
    processes: int = 16
    """And threads, at one time. Only a command may start processes: a script or function has one, with threads, so
    that ``memory_mib`` and ``cpu_s`` hold for all of it."""
    file_mib: int = 16
    """Size of each file written."""
    output_kib: int = 4096
    """Of standard output, and of a returned value."""

    def as_sent(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Outcome:
    """How one test ended. Compare ``stdout`` or ``value`` with what was expected only when ``status`` is "ok".

    ``status``: "ok" (it ended by itself, with exit code 0), "error" (another code, an uncaught exception, a signal),
    "time", "memory" (advice: told apart from "error" by the exit code), "output" (more than allowed).
    """

    status: str
    stdout: bytes = b""
    stderr: bytes = b""
    """The last 4 KiB."""
    value: bytes = b""
    """JSON of what a function returned; empty when it returned nothing that has a form in JSON."""
    exit_code: int = 0
    """Negative: the signal that ended it."""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    blocked_s: float = 0.0
    """As in ``Limits``: at least half of it is found, and nothing of a test that ended within 0.1 s."""
    memory_mib: int = 0
    """Most resident memory."""


@dataclass(frozen=True)
class Request:
    """One test of one program. Made by ``script``, ``function`` or ``command``."""

    mode: str
    program: bytes = b""
    stdin: bytes = b""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else the mode needs: of JSON's types."""


def script(source: str, stdin: str | bytes = b"") -> Request:
    """``source`` run as ``__main__`` with ``stdin``."""
    given = stdin if isinstance(stdin, bytes) else _encoded(stdin)
    return Request("script", _encoded(source), given)


def function(source: str, name: str, arguments: str) -> Request:
    """``name`` of ``source`` (of its class ``Solution``, or top-level) called with a JSON list of ``arguments``."""
    return Request("function", _encoded(source), facts={"function": name, "arguments": arguments})


def command(
    argv: Sequence[str], files: Mapping[str, str], environment: Mapping[str, str] | None = None, stdin: bytes = b""
) -> Request:
    """``argv`` in a folder that holds ``files`` (relative path: content). Needs the level ``namespaces``.

    Raises ValueError for a path that leaves the folder, or that has a file where another needs a folder.
    """
    for path in files:
        parts = path.split("/")
        if not all(parts) or not {".", ".."}.isdisjoint(parts) or "\0" in path:
            raise ValueError(f"{path[:200]!r} is no path of a file in the sandbox's folder")
        if any("/".join(parts[:depth]) in files for depth in range(1, len(parts))):
            raise ValueError(f"{path[:200]!r} needs a folder where there is a file")

    facts = {"command": list(argv), "environment": dict(environment or {}), "files": dict(files)}
    return Request("command", b"", stdin, facts)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")

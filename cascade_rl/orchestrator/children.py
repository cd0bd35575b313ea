"""One process per job and rank, which dies with its supervisor: fresh, or forked from one that has imported a lot."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from cascade_rl.processes import cores
from cascade_rl.recipe.launching import VARIABLE, Launch

# What the launcher's own rendezvous and accelerate set would mislead a child that has its own.
_LAUNCHER_VARIABLES = ("TORCHELASTIC_", "ACCELERATE_", "FSDP_", "GROUP_", "ROLE_", "TORCH_NCCL_ASYNC_ERROR_HANDLING")


def free_port() -> int:
    """A TCP port free on this host right now, for a child group's rendezvous."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def child_environment(rank: int, world_size: int, local_rank: int, address: str, port: int) -> dict[str, str]:
    """The environment of a stage process: ours, with its own rendezvous in place of the launcher's."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_LAUNCHER_VARIABLES)}
    environment[VARIABLE] = Launch.from_environment(os.environ).handed_on()  # what the config asked for stays known
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    # torchrun sets 1 thread per process when it starts several; a lone process may use the machine.
    threads = os.environ.get("CASCADE_RL_THREADS") or str(max(1, cores() // max(1, local_world)))
    return environment | {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(local_world),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": threads,
        # Threads that spin while they wait are ruinous on a machine that does anything else, and those that sleep at
        # once are slow on one that does not. Measured with a tiny model on 2 cores, tokens/s alone and beside one busy
        # process: libgomp's default 16,800 and 250 to 1,600; no spinning 9,200 and 9,000; 5,000 turns 15,500 and 6,000.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "5000"),
        "CASCADE_RL_PARENT": str(os.getpid()),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }


class Child(Protocol):
    """A stage process, as its supervisor handles it."""

    returncode: int | None

    def poll(self) -> int | None: ...
    def wait(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Children:
    """Starts the stage process of each job, one at a time; ``close`` when there are no more."""

    def __init__(self, folder: Path) -> None:
        """``folder``: of the run's session."""
        self._folder = folder
        self._warm: WarmProcess | None = None

    def start(self, job: Path, outcome: Path, environment: Mapping[str, str]) -> Child:
        """Start a stage process; it writes how it ended to ``outcome``."""
        if not may_be_warm():
            return subprocess.Popen(
                [sys.executable, "-m", "cascade_rl.stages.worker", str(job), str(outcome)],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
            )
        if self._warm is None or not self._warm.is_alive:
            self._warm = WarmProcess(self._folder, environment)
        return self._warm.start(job, outcome, environment)

    def close(self) -> None:
        """End the warm process, if there is one."""
        if self._warm is not None:
            self._warm.close()
            self._warm = None


def may_be_warm() -> bool:
    """Whether stage processes are forked from one that has imported the large libraries (``cascade_rl.stages.warm``):
    on machines without a GPU, unless ``CASCADE_RL_WARM=0`` asks for fresh imports."""
    return os.environ.get("CASCADE_RL_WARM") != "0" and not any(Path("/dev").glob("nvidia[0-9]*"))


class WarmProcess:
    """The process that forks stage processes, from the supervisor's side."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        orders, self._orders = os.pipe()
        self._reports, reports = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cascade_rl.stages.warm", str(orders), str(reports), str(os.getpid()), str(folder)],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            pass_fds=(orders, reports),
        )
        os.close(orders)
        os.close(reports)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def start(self, job: Path, outcome: Path, environment: Mapping[str, str]) -> WarmChild:
        """Fork a stage process. It begins once the imports are done, if this is the first."""
        order = {"job": str(job), "outcome": str(outcome), "environment": dict(environment)}
        with contextlib.suppress(BrokenPipeError):  # the child then ends as if killed
            os.write(self._orders, json.dumps(order).encode() + b"\n")
        return WarmChild(self._reports, self._process)

    def close(self) -> None:
        os.close(self._orders)
        os.close(self._reports)
        self._process.kill()
        self._process.wait()


class WarmChild:
    """A forked stage process (see ``Child``). Signals sent before it exists reach it as soon as it does."""

    def __init__(self, reports: int, parent: subprocess.Popen) -> None:
        self._reports, self._parent = reports, parent
        self._read = b""
        self._waiting: int | None = None  # a signal for a process that is not there yet
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        self._look(0.0)
        return self.returncode

    def wait(self) -> int | None:
        """Wait for its end; returns the exit code."""
        while self.returncode is None:
            self._look(None)
        return self.returncode

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    @property
    def _lines(self) -> list[bytes]:
        return self._read.split(b"\n")[:-1]

    def _send(self, number: int) -> None:
        self._look(0.0)
        if self.returncode is not None:
            return
        if self._lines:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self._lines[0]), number)
        else:
            self._waiting = number

    def _look(self, timeout_s: float | None) -> None:
        """Read what the warm process has reported; its end is the end of the stage process too."""
        if self.returncode is not None or not select.select([self._reports], [], [], timeout_s)[0]:
            return
        known = len(self._lines)
        got = os.read(self._reports, 4096)
        self._read += got
        if len(self._lines) > 1:
            self.returncode = int(self._lines[1])
        elif not got:
            self._parent.wait()
            self.returncode = -signal.SIGKILL
        elif known == 0 and self._lines and self._waiting is not None:
            self._send(self._waiting)

"""One worker process as its manager sees it: started, asked, killed, reaped."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cascade_rl.rewarding import process_tree
from cascade_rl.rewarding.deadline import START_COMPUTING_S, Deadline
from cascade_rl.rewarding.process_tree import ProcessTree
from cascade_rl.rewarding.records import RewardSettings
from cascade_rl.rewarding.wire import Channel
from cascade_rl.types import Score

WORKER = "CASCADE_RL_REWARD_WORKER"
"""Environment variable with the worker's number, when it is the first to have it: "0" may speak for all."""


class WorkerGone(Exception):
    """No verdict will come from this worker any more."""

    def __init__(self, why: Literal["timeout", "crashed", "memory"], trace: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.trace = trace
        """Where memory ran out."""


class CannotStart(Exception):
    """The worker never got ready. ``final``: the reward itself refused, so another try would do the same."""

    def __init__(self, text: str, *, final: bool) -> None:
        super().__init__(text)
        self.final = final


class WorkerProcess:
    """A fresh, light interpreter, never a fork of the trainer, whose threads and memory it must not share.

    Start it from a thread that lives as long as it should: Linux kills it when the *thread* that started it ends.
    Raises OSError when the system has no process or memory to give.
    """

    def __init__(self, settings: RewardSettings, search: Sequence[Path], name: str = "") -> None:
        self._settings = settings
        self._search = tuple(search)
        self._reaping = threading.Lock()
        self._reaped = False
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as undo, theirs:
            undo.callback(ours.close)
            self._process = subprocess.Popen(
                # -P: the working folder goes on the path where we want it, not before the standard library.
                [sys.executable, "-P", "-m", "cascade_rl.rewarding.worker", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=[theirs.fileno()],
                env={**_environment(), WORKER: name},
                process_group=0,  # so that what a reward starts is killed with it, and Ctrl-C is the trainer's alone
            )
            undo.pop_all()
        self._channel = Channel(ours)
        self._handle: int | None = None
        with contextlib.suppress(AttributeError, OSError):  # not Linux, or a kernel without it
            self._handle = os.pidfd_open(self._process.pid)
        self.is_spent = False
        """Whether it should be replaced before the next call."""

    @property
    def pid(self) -> int:
        """Of the process that was started: on Linux the worker's supervisor, which ends with it."""
        return self._process.pid

    def get_ready(self, computing_s: float = START_COMPUTING_S, blocked_s: float | None = None) -> None:
        """Hand over the reward and wait until it is loaded, imports included; calls have deadlines of their own.

        Raises CannotStart when the process ended, computed for ``computing_s``, or was blocked for ``blocked_s``.
        """
        deadline = self._deadline(computing_s, blocked_s, is_new=True)
        try:
            self._channel.send(pickle.dumps((self._settings, self._search, list(sys.path))), deadline)
            answer = json.loads(self._channel.receive(deadline))
        except TimeoutError as error:
            raise CannotStart(
                f"a worker for reward {self._settings.use!r} was not ready after {error}", final=False
            ) from None
        except (EOFError, OSError, ValueError):
            raise CannotStart(
                f"a worker for reward {self._settings.use!r} died while starting; its own words are on standard error",
                final=False,
            ) from None
        if "failed" in answer:
            raise CannotStart(answer["failed"], final=True)

    def score(self, command: bytes) -> Score:
        """The verdict on a pickled ScoreCall. Raises WorkerGone; the worker is of no more use then."""
        settings = self._settings
        deadline = self._deadline(settings.timeout_s, settings.blocked_s)
        try:
            self._channel.send(command, deadline)
            answer = json.loads(self._channel.receive(deadline))
            # A call that ends between two looks at it has the same limit as one that is caught by a look.
            if answer["computed_s"] > settings.timeout_s:
                raise WorkerGone("timeout")
            if "out_of_memory" in answer:
                raise WorkerGone("memory", answer["out_of_memory"])
            self.is_spent = answer["is_spent"]
            return Score(float(answer["value"]), answer["details"], answer["error"])
        except TimeoutError:
            raise WorkerGone("crashed" if self._has_ended() else "timeout") from None
        except (EOFError, OSError, ValueError, KeyError, TypeError):
            raise WorkerGone("crashed") from None

    def _deadline(self, computing_s: float, blocked_s: float | None, *, is_new: bool = False) -> Deadline:
        tree = ProcessTree(self._process.pid, from_birth=is_new)
        return Deadline(tree, computing_s, blocked_s, is_new=is_new, process=self._handle)

    def kill(self) -> None:
        """SIGKILL to the worker and all it started. May be called from any thread; does not wait."""
        with self._reaping:
            if not self._reaped:  # afterwards the number may be another process's
                elsewhere = process_tree.descendants(self._process.pid)  # some may have left the process group
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                process_tree.kill(elsewhere)

    def reap(self) -> None:
        """Kill, and leave no zombie and no descriptor behind. May be called twice."""
        self.kill()
        with self._reaping:
            self._process.wait()
            self._reaped = True
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None
        self._channel.close()

    def _has_ended(self) -> bool:
        # A process that the reward forked can hold the socket open after the worker itself has died. WNOWAIT: looked
        # at, not reaped, so that its number stays ours until kill().
        with contextlib.suppress(ChildProcessError, AttributeError):
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return False


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    given: dict[str, Any] = dict(os.environ)
    return {
        **given,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, given.get("PYTHONPATH")])),
        "PYTHONHASHSEED": "0",  # sets, and sympy with them, then have the same order in every worker
        "OMP_NUM_THREADS": "1",  # there are as many workers as cores
    }

"""A small process between the trainer and a worker, which ends all that the worker started once one of the two ends.

    trainer ──starts──► supervisor ──forks──► worker ──starts──► whatever a reward starts
                            │ is told by the kernel when the trainer or the worker ends; adopts orphans
                            └► SIGKILL to every descendant, until none is left

A trainer that is killed by SIGKILL cannot clean up, and the kernel's signal on a parent's death is not inherited by
the children of a worker. The supervisor is a subreaper (prctl(2)): a process that a reward started stays its
descendant, also in a session of its own and after its parent has ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn

from cascade_rl.processes import adopt_orphans, die_with_parent
from cascade_rl.rewarding import process_tree


def supervise(parent: int, worker_only: int) -> None:
    """Fork: return in the child, which is the worker, and stay as its supervisor in this process.

    ``parent``: the process that must be alive. ``worker_only``: a descriptor that the supervisor closes, so that the
    other side notices the end of the worker. Call it before there are threads. Without Linux's prctl no process is
    forked, and a worker ends when the other side of its socket closes.
    """
    if not sys.platform.startswith("linux"):
        return
    parent_died = signal.SIGRTMIN  # of no use to terminals and schedulers, unlike SIGTERM, SIGHUP and SIGUSR1
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    die_with_parent(parent, parent_died)
    adopt_orphans()
    us = os.getpid()
    worker = os.fork()
    if worker == 0:
        die_with_parent(us)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    os.close(worker_only)
    while signal.sigwait({signal.SIGCHLD, parent_died}) == signal.SIGCHLD and not _has_ended(worker):
        pass
    _end_descendants()


def _has_ended(worker: int) -> bool:
    """Wait for the children that have ended, adopted ones too; whether the worker was among them."""
    while (ended := os.waitpid(-1, os.WNOHANG)[0]) not in (0, worker):
        pass
    return ended == worker


def _end_descendants() -> NoReturn:
    """Kill children until there are none: those of a killed process become children of this one."""
    while True:
        for child in process_tree.children(os.getpid()):
            with contextlib.suppress(PermissionError):  # a program that runs as another user
                os.kill(child, signal.SIGKILL)  # the number stays this child's until it is waited for
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            os._exit(0)

"""A process that imports the large libraries once and forks the stage process of each job.

torch, transformers and vLLM take 8 s of processor time to import, and a cascade runs about two jobs for each stage.
What a job needs is imported before its process is forked, and is there for all later ones. A forked process shares
what is imported and nothing else: it begins as a fresh one does, and how it ends concerns no other job. Only where
there is no GPU: a process forked from one that has looked for a device cannot use it.

``python -m cascade_rl.stages.warm ORDERS REPORTS PARENT FOLDER`` reads a JSON line per job from the file descriptor
ORDERS, one job at a time: ``{"job", "outcome", "environment"}``. It writes to REPORTS the pid of the stage process and,
once that has ended, its exit code, a line each. FOLDER is there for those who look for the processes of a run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from cascade_rl.processes import collector_paused, die_with_parent
from cascade_rl.stages import worker
from cascade_rl.store import Job


def preload(job_file: str) -> None:
    """Import what the job needs, once for all jobs after it; vLLM, most of the time, only for those that sample.

    A job whose own import fails says so itself, in its own words."""
    with silent(), collector_paused(), contextlib.suppress(Exception):
        from cascade_rl.rollout.vllm_engine import prepare_environment

        prepare_environment(cpu=True)
        from cascade_rl.stages import context  # noqa: F401

        job = Job.model_validate_json(Path(job_file).read_text())
        if job.task == "stage":
            worker.stage_module(job)
        if job.samples:
            from vllm import LLM  # noqa: F401

            from cascade_rl.stages import measure  # noqa: F401


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep what libraries print while they are imported off the user's terminal."""
    sys.stdout.flush()
    kept = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(nowhere)


def begin(order: dict[str, Any]) -> NoReturn:
    """Become the stage process of ``order``."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        parent = str(os.getppid())
        os.environ.clear()
        os.environ.update(order["environment"], CASCADE_RL_PARENT=parent)
        sys.argv = [worker.__file__, order["job"], order["outcome"]]
        code = worker.main(order["job"], order["outcome"])
        sys.stdout.flush()
    finally:
        os._exit(code)


def main(orders: int, reports: int, parent: int) -> None:
    """Carry out orders until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the supervisor decides
    die_with_parent(parent)
    with open(orders, encoding="utf-8") as lines:
        for line in lines:
            order = json.loads(line)
            preload(order["job"])
            pid = os.fork()
            if pid == 0:
                os.close(reports)
                os.close(orders)
                begin(order)
            os.write(reports, f"{pid}\n".encode())
            _, status = os.waitpid(pid, 0)
            os.write(reports, f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))

"""The process of one rank for one job: ``python -m cascade_rl.stages.worker JOB.json OUTCOME.json``.

Its own messages go where the supervisor's go; everything libraries print goes to the stage's log file. How it ended
is its exit code, and on an error OUTCOME.json, so that the supervisor can show one message for all ranks.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cascade_rl.processes import allow_long_integers, collector_paused, die_with_parent
from cascade_rl.store import Job
from cascade_rl.store.checksums import faults, publishing_checkpoint, verify
from cascade_rl.store.files import disk_fault, write_json
from cascade_rl.types import EXIT_RESUME, CascadeError, Preempted

if TYPE_CHECKING:
    from cascade_rl.stages.context import Context


def divert_output(log: Path) -> TextIO:
    """Send file descriptors 1 and 2 to ``log``; returns the real standard output for our own messages."""
    log.parent.mkdir(parents=True, exist_ok=True)
    ours = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace")
    sys.stdout.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    return ours


def perform(job: Job, out: TextIO) -> None:
    """Do ``job`` on this rank."""
    with collector_paused():
        from cascade_rl.stages.context import Context, StopFlag

    stop = StopFlag()
    stop.install()  # before the long imports: a stop asked for meanwhile must not be lost
    from cascade_rl.training import ranks as processes

    ranks = processes.join()
    context = Context(job, ranks, stop, out)
    from cascade_rl.stages.unchanged import refuse_changes, refuse_damage

    refuse_changes(job, ranks)
    refuse_damage(job, ranks)
    if job.task == "base":
        if ranks.is_main:
            build_base(job)
        ranks.barrier()
    elif job.task == "evaluate":
        _measure(context)
    else:
        context.job = _with_positions(context)
        try:
            stage_module(job).run(context)
        except Preempted:
            raise
        except Exception:
            context.saver.wait()  # the state that is being written is worth keeping, whatever the error
            raise
    # Not after an error: taking a broken group apart may abort this process before the error is written down.
    processes.leave()


def _measure(context: Context) -> None:
    if context.job.stage is not None:  # such a stage has benchmarks of its own
        stage_module(context.job).measure_missing(context)
        return
    from cascade_rl.stages import measure

    measure.run(context)


def _with_positions(context: Context) -> Job:
    """The job, its checkpoint stretched where its stage asks for more positions."""
    from cascade_rl.stages.checkpoints.rope import stretched

    job = context.job
    scaling = job.stage_config().rope_scaling
    if scaling is None or job.checkpoint is None:
        return job
    folder = job.stage_folder.path / ".stretched"
    if context.ranks.is_main:
        stretched(job.checkpoint, scaling, folder)
    context.ranks.barrier()
    return job.model_copy(update={"checkpoint": str(folder)})


def build_base(job: Job) -> None:
    """Write a built-in model's checkpoint, template installed."""
    from cascade_rl import models
    from cascade_rl.stages.checkpoints.handover import install_contract

    if job.stage_folder.checkpoint.exists() and not faults(job.stage_folder, hashes=True):
        return
    with publishing_checkpoint(job.stage_folder) as folder:
        models.build(job.model, folder, seed=job.seed, args=job.model_args)
        install_contract(folder, job.template)


def stage_module(job: Job) -> Any:
    """The module with the ``run(context)`` of the stage's kind."""
    import importlib

    config = job.stage_config()
    with collector_paused():
        return importlib.import_module(config.CODE or f"cascade_rl.stages.{config.kind}")


def main(job_file: str, outcome_file: str) -> int:
    parent = os.environ.get("CASCADE_RL_PARENT")
    die_with_parent(int(parent) if parent else None)
    allow_long_integers()
    job = Job.model_validate_json(Path(job_file).read_text())
    rank = int(os.environ.get("RANK", "0"))
    out = divert_output(job.stage_folder.logs / f"{job.task}-rank-{rank}.log")
    print(f"\n===== {time.strftime('%F %T')} {job.task} {job.name}, rank {rank}, process {os.getpid()}", flush=True)
    try:
        # A checkpoint is published last of all: where it is, the training was finished and only the note is missing.
        if not (job.task == "stage" and job.stage_folder.checkpoint.exists()):
            perform(job, out)
        elif rank == 0:
            verify(job.stage_folder)
    except Preempted:
        return EXIT_RESUME
    except BaseException as error:
        ended = time.time()
        traceback.print_exc()
        write_json(Path(outcome_file), {"message": _message(error, job), "time": ended, "secondary": _follows(error)})
        return 1
    return 0


def _message(error: BaseException, job: Job) -> str:
    """What the user reads: our own errors as they are, others with their place and where the rest stands."""
    if isinstance(error, CascadeError):
        return str(error)
    place = ""
    if disk_fault(error):
        place = "The disk takes no more. What was saved is intact: free some space, start the same command again.\n"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{place}{type(error).__name__}: {error}{where}\nThe full trace is in {job.stage_folder.logs}"


def _follows(error: BaseException) -> bool:
    """True for errors that another rank's failure causes here: a broken collective says nothing by itself."""
    text = str(error).lower()
    return any(
        word in text for word in ("connection closed by peer", "connection reset", "gloo", "nccl", "broken pipe")
    )


if __name__ == "__main__":
    code = main(*sys.argv[1:3])
    sys.stdout.flush()
    # vLLM and reward threads may linger; everything that matters is on disk by now.
    os._exit(code)

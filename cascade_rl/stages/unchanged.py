"""Whether the files that a job reads are still those that its run was planned with.

A stage may start days after its run was planned. What is computed from an edited file must not be stored under the
identity of the old one, so the files are compared when the job starts, and again once it has read them: a change in
between shows in one of the two.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cascade_rl.fingerprints import recorded
from cascade_rl.inputs import benchmark_inputs, folder_inputs, stage_inputs
from cascade_rl.store import Job, PlannedBenchmark, StageFolder, differences, identity_of
from cascade_rl.store.checksums import verify
from cascade_rl.training.ranks import Ranks
from cascade_rl.types import CascadeError


def refuse_changes(job: Job, ranks: Ranks) -> None:
    """Raise CascadeError on all ranks if a file that ``job`` reads has changed since its run was planned.

    A collective call. The main rank looks, once for all: each file is read whole the first time, and again only if its
    size or times differ.
    """
    problem = _problem(job) if ranks.is_main else None
    if problem := ranks.gather(problem)[0]:
        raise CascadeError(problem)


def refuse_damage(job: Job, ranks: Ranks) -> None:
    """Raise CascadeError on all ranks if a result of another stage that ``job`` starts from is damaged.

    A collective call. The main rank reads the files whole, once: about 1 GB/s, little beside loading them into an
    engine.
    """
    problem = None
    if ranks.is_main:
        try:
            for place, only in _results_read(job):
                verify(place, only)
        except CascadeError as error:
            problem = str(error)
    if problem := ranks.gather(problem)[0]:
        raise CascadeError(problem)


def _results_read(job: Job) -> Iterator[tuple[StageFolder, str]]:
    """Stages whose results ``job`` reads, each with what of it: the checkpoint to start from or to measure, inherited
    moments, teachers, reward models."""
    if job.parent_optimizer is not None:
        yield StageFolder(job.parent_optimizer.parent), job.parent_optimizer.name
    for path in dict.fromkeys([job.checkpoint, *_texts(job.stage)]):
        if path and os.path.basename(path) == "checkpoint" and os.path.isdir(path):
            yield StageFolder(Path(path).parent), "checkpoint/"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def refuse_changes_here(job: Job) -> None:
    """The same within what the main rank does alone."""
    if problem := _problem(job):
        raise CascadeError(problem)


def _problem(job: Job) -> str | None:
    lines = list(dict.fromkeys(_changes(job)))
    if not lines:
        return None
    listed = "\n".join(f"  {line}" for line in lines)
    return (
        f"{job.name} reads files that have changed since this run was planned:\n{listed}\n"
        f"Its result would be stored under the identity of the old files ({job.identity}), so it is not computed. Put "
        "the old files back, or start the same command again to plan with the files as they are now."
    )


def _changes(job: Job) -> Iterator[str]:
    """A line for each file that has changed, old hash -> new hash."""
    if job.parent_files is not None and "files" in job.parent_files and job.checkpoint is not None:
        folder = Path(job.checkpoint)
        old = {os.path.abspath(folder / name): digest for name, digest in job.parent_files["files"].items()}
        yield from _compared(job.parent_files, old, lambda: {**_rest(job.parent_files), **folder_inputs(folder)})
    if job.reads is not None:
        reads = job.reads
        yield from _compared(
            reads.inputs,
            reads.files,
            lambda: stage_inputs(reads.stage_config(), reads.stages_data, reads.known, job.recipe_path),
        )
    for planned in job.benchmarks if _measures(job) else ():
        yield from _compared({"identity": planned.identity}, planned.files, functools.partial(_identity, job, planned))


def _identity(job: Job, planned: PlannedBenchmark) -> dict[str, Any]:
    inputs = benchmark_inputs(planned.config, job.template, job.dtype, job.recipe_path)
    return {"identity": identity_of(inputs)}


def _measures(job: Job) -> bool:
    """Whether the job reads benchmarks: a reward model's job does not, and of those that train only some do."""
    return job.samples and (job.stage is None or job.evaluate_every is not None)


def _rest(inputs: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (inputs or {}).items() if key != "files"}


def _compared(
    planned: Mapping[str, Any], files: Mapping[str, str], read_again: Callable[[], Mapping[str, Any]]
) -> Iterator[str]:
    """Files that differ; where all of them are the same, the inputs that differ all the same (another module is found
    under a name, say)."""
    try:
        with recorded() as now:
            inputs = read_again()
    except (CascadeError, OSError) as error:
        yield f"{error}"
        return
    if identity_of(inputs) == identity_of(planned):
        return
    both = ((path, files.get(path, "not there"), now.get(path, "not there")) for path in {**files, **now})
    changed = [f"{path}: {old} -> {new}" for path, old, new in both if old != new]
    yield from changed or differences(planned, inputs)

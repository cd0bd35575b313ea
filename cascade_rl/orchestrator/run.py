"""A run from start to end: plan, compare with what was, do what is missing."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from cascade_rl.orchestrator.changes import refuse_silent_changes
from cascade_rl.orchestrator.damage import refuse_damage
from cascade_rl.orchestrator.environment import FIX, environment_problems
from cascade_rl.orchestrator.gates import SHUT, Decision, GateShut, settled, stop_message
from cascade_rl.orchestrator.jobs import base_job, evaluate_job, stage_job
from cascade_rl.orchestrator.plan import BASE, Plan, PlannedStage, make_plan
from cascade_rl.orchestrator.preflight import preflight
from cascade_rl.orchestrator.session import RankInfo, open_session
from cascade_rl.orchestrator.supervisor import StageFailed, Stopped, StopRequest, Supervisor
from cascade_rl.orchestrator.trials import try_rewards
from cascade_rl.processes import die_with_parent
from cascade_rl.recipe import LoadedRecipe
from cascade_rl.recipe.parts import NAME_LENGTH, NAME_PATTERN
from cascade_rl.recipe.wording import unfit_name
from cascade_rl.store import Job, StageFolder, Store
from cascade_rl.store.files import remove_leftovers, write_text
from cascade_rl.store.inspection import inventory, note_results
from cascade_rl.store.locks import hold, hold_in_turn, hold_together
from cascade_rl.store.records import now
from cascade_rl.types import EXIT_RESUME, CascadeError

Say = Callable[[str], None]
Work = tuple[str, Job, tuple[StageFolder, dict] | None]
"""Title, job, and the stage with the record to keep of it (None: an evaluation, of which none is kept)."""
Turn = AbstractContextManager[None]


@dataclass(frozen=True)
class Wishes:
    """How a run was asked for. Raises CascadeError for a ``branch`` that cannot be a name."""

    from_stage: str | None = None
    until: str | None = None
    branch: str | None = None
    accept_changes: bool = False
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.branch and not (re.fullmatch(NAME_PATTERN, self.branch) and len(self.branch) <= NAME_LENGTH):
            raise CascadeError(f"--branch: {unfit_name(self.branch)}")


def run(loaded: LoadedRecipe, store: Store, wishes: Wishes, say: Say) -> tuple[str, int]:
    """Run ``loaded``; every rank's process calls this. Returns (run name, exit code).

    Raises CascadeError for everything found before work starts, and for a stage that failed; what was finished
    stays finished. Exit code 75 (EXIT_RESUME) means stopped on request: the same command goes on.
    """
    info = RankInfo.from_environment()
    if "TORCHELASTIC_RUN_ID" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ:
        # A launcher that is killed cannot tell us; without it nobody would stop us.
        die_with_parent(signal_number=signal.SIGTERM)
    stop = StopRequest()
    stop.install()
    name = wishes.branch or loaded.recipe.name
    control = store.run_folder(name) / ".control"
    if info.rank != 0:
        with contextlib.closing(Supervisor(open_session(control, info), stop)) as supervisor:
            return name, supervisor.follow(lambda: None)
    with hold(store.run_folder(name) / ".lock", f"run {name!r}", run=name):
        # The session opens first: an error found below must release the other ranks, not leave them waiting.
        supervisor = Supervisor(open_session(control, info), stop)
        code = 1
        try:
            plan = prepare(loaded, store, wishes, info.world_size, say)
            _try_rewards(plan, say)
            code = _carry_out(plan, wishes, supervisor, stop, say)
        finally:
            supervisor.dismiss(code)
            supervisor.close()
            shutil.rmtree(control / "join", ignore_errors=True)
    return name, code


def prepare(loaded: LoadedRecipe, store: Store, wishes: Wishes, world_size: int, say: Say) -> Plan:
    """Check everything that can be checked, and write down what the run will be. Raises CascadeError."""
    preflight(loaded, world_size)
    if problems := environment_problems():
        say(f"WARNING: this environment is not the tested one: {'; '.join(problems)}. {FIX}.")
    run_name = wishes.branch or loaded.recipe.name
    if wishes.branch and store.read_run(wishes.branch) is not None:
        raise CascadeError(f"run {wishes.branch!r} exists already; choose another name for --branch")
    plan, decisions = settled(make_plan(loaded, store, run_name))
    for named in (wishes.from_stage, wishes.until):
        if named is not None:
            plan.stage(named)
    if wishes.from_stage and wishes.until:
        order = [stage.name for stage in plan.stages]
        if order.index(wishes.until) < order.index(wishes.from_stage):
            raise CascadeError(f"--until {wishes.until} comes before --from {wishes.from_stage}: nothing would run")
    if wishes.fresh:
        forget(plan, say)
        plan, decisions = settled(plan)
    refuse_silent_changes(plan, decisions, wishes.accept_changes, say)
    if wishes.from_stage:
        set_aside(plan, wishes.from_stage, say)
    plan, decisions = settled(plan)  # evaluations set aside decide nothing any more
    refuse_damage(plan, say)
    _tell_vanished(plan, say)
    _note(plan, decisions, loaded.recipe.name if wishes.branch else None)
    origin = f"# {loaded.path} as resolved; relative paths are looked for beside that file and in the working folder\n"
    write_text(store.run_folder(run_name) / "recipe.yaml", origin + loaded.to_yaml())
    return plan


def _note(plan: Plan, decisions: Sequence[Decision], branch_of: str | None = None) -> None:
    """``run.json``: what the run is, and what its gates have said so far."""
    record = plan.store.read_run(plan.run) or {}
    plan.store.write_run(
        plan.run,
        {
            **plan.record(),
            "gates": [decision.record() for decision in decisions],
            "finished": _finished(plan, record),
            "created": record.get("created", now()),
            "updated": now(),
            "branch_of": record.get("branch_of", branch_of),
        },
    )


def _note_finished(plan: Plan) -> None:
    """Keep in ``run.json`` which stages are complete."""
    record = plan.store.read_run(plan.run)
    if record is not None and record.get("finished", []) != (finished := _finished(plan, record)):
        plan.store.write_run(plan.run, {**record, "finished": finished})


def _finished(plan: Plan, record: Mapping[str, Any]) -> list[str]:
    """Folders of stages that are complete, or were when the run last looked: such a one that is gone has vanished.

    A stage whose folder is there and not complete is being computed anew (``--from``)."""
    before = set(record.get("finished", []))
    folders = {str(stage.folder.path.relative_to(plan.store.root)): stage.folder for stage in plan.stages}
    return [
        name
        for name, folder in folders.items()
        if folder.is_complete or (name in before and not folder.path.exists() and not folder.superseded.exists())
    ]


def _tell_vanished(plan: Plan, say: Say) -> None:
    """Warn about finished stages whose folders are gone."""
    before = set((plan.store.read_run(plan.run) or {}).get("finished", []))
    for stage in plan.stages:
        gone = not stage.folder.path.exists() and not stage.folder.superseded.exists()
        if gone and str(stage.folder.path.relative_to(plan.store.root)) in before:
            say(f"WARNING: {stage.name} was finished and its folder {stage.folder.path} is gone; it is computed anew")


def _try_rewards(plan: Plan, say: Say) -> None:
    """Raises RecipeError: now, and not after the hours that come before the stage."""
    finished = [stage.name for stage in plan.stages if stage.folder.is_complete]
    if len(finished) < len(plan.stages):
        for warning in try_rewards(plan.loaded, finished):
            say(f"WARNING: {warning}")


def set_aside(plan: Plan, name: str, say: Say) -> None:
    """``--from``: move the finished results of ``name`` and what follows from it out of the way, keeping them.

    They are deleted once their successors are complete.
    """
    redo = {name}
    for stage in plan.stages:
        if stage.sources & redo:
            redo.add(stage.name)
        if stage.name in redo and stage.folder.path.exists():
            what, run_name = f"stage {stage.name!r}", plan.run
            with hold(stage.folder.lock, what, run_name), hold(stage.folder.reading_lock, what, run_name):
                _move_aside(stage, say)


def _move_aside(stage: PlannedStage, say: Say) -> None:
    if not stage.folder.is_complete:
        shutil.rmtree(stage.folder.path)
        return
    aside = stage.folder.superseded
    shutil.rmtree(aside, ignore_errors=True)
    stage.folder.path.rename(aside)
    say(f"{stage.name} will be computed anew; until it is, the old result stays in {aside.name}")


def forget(plan: Plan, say: Say) -> None:
    """``--fresh``: delete this run and those of its stages that no other run uses.

    Raises CascadeError for a stage that a run works on that has left it out of its ``run.json`` since.
    """
    used = {
        entry["directory"]
        for run_name in plan.store.runs()
        if run_name != plan.run
        for entry in _entries(plan.store.read_run(run_name))
    }
    ours = {entry["directory"] for entry in _entries(plan.store.read_run(plan.run))}
    ours |= {entry["directory"] for entry in _entries(plan.record())}
    for directory in sorted(ours - used):
        if (plan.store.root / directory).exists():
            folder, what = StageFolder(plan.store.root / directory), f"the folder {directory}"
            with hold(folder.lock, what, plan.run), hold(folder.reading_lock, what, plan.run):
                shutil.rmtree(folder.path)
            say(f"removed {directory}")
    for file in ("run.json", "recipe.yaml"):
        (plan.store.run_folder(plan.run) / file).unlink(missing_ok=True)
    shutil.rmtree(plan.store.run_folder(plan.run) / "report", ignore_errors=True)


def _entries(record: dict | None) -> list[dict]:
    return [record["base"], *record["stages"]] if record else []


def _carry_out(plan: Plan, wishes: Wishes, supervisor: Supervisor, stop: StopRequest, say: Say) -> int:
    """Every job that is still to do, in order. Returns the exit code."""

    def at_gates(plan: Plan, stage: PlannedStage) -> Plan:
        return _at_gates(plan, stage, wishes, say)

    @contextlib.contextmanager
    def turn(name: str, folder: StageFolder, sources: Sequence[StageFolder]) -> Iterator[None]:
        def on_wait(holder: str) -> None:
            say(f"Waiting for {name}: it is in use {holder}")

        with hold_in_turn(folder.lock, plan.run, on_wait, check_stop), contextlib.ExitStack() as reading:
            for source in sources:
                reading.enter_context(hold_together(source.reading_lock, plan.run, check_stop))
                if not source.is_complete:
                    raise CascadeError(
                        f"{name} starts from {source.path}, which is not complete any more: another run computes it "
                        "anew (--from). Start the same command again to wait for it."
                    )
            yield

    def check_stop() -> None:
        if stop.is_set:
            raise Stopped

    try:
        # Closed at once when a job fails, so that the lock of its stage is free before the report is written.
        with contextlib.closing(_work(plan, wishes, at_gates, turn)) as jobs:
            for title, job, place in jobs:
                check_stop()
                say(title)
                _do(job, place, supervisor)
    except Stopped as stopped:
        unsaved = f"; {stopped}" if str(stopped) else ""
        say(f"Stopped as asked{unsaved}. The same command goes on from the last saved state.")
        return EXIT_RESUME
    return 0


def _at_gates(plan: Plan, stage: PlannedStage, wishes: Wishes, say: Say) -> Plan:
    """Ask the gates once ``stage`` is measured; returns the plan to go on with.

    Raises GateShut where one says stop, and where a roll-back would mean to compute finished work anew.
    """
    if not plan.loaded.recipe.gates:
        return plan
    new, decisions = settled(plan)
    if new.rolled_back != plan.rolled_back:
        try:
            refuse_silent_changes(new, decisions, wishes.accept_changes, say)
        except CascadeError as error:
            raise GateShut(str(error)) from None
    _note(new, decisions)
    of_stage = [decision for decision in decisions if decision.stage == stage.name]
    for decision in of_stage:
        if decision.verdict != "pass":
            say(f"{'GATE SHUT' if decision.verdict in SHUT else 'gate'} {decision.message}")
    if stops := [decision for decision in of_stage if decision.verdict == "stop"]:
        raise GateShut(stop_message(stops, plan.loaded))
    if stage.name in new.rolled_back:
        say(f"{stage.name} is rolled back: what would start from it starts from {new.stage(stage.name).parent}")
    return new


def _work(
    plan: Plan,
    wishes: Wishes,
    at_gates: Callable[[Plan, PlannedStage], Plan] = lambda plan, _: plan,
    turn: Callable[[str, StageFolder, Sequence[StageFolder]], Turn] = lambda *_: contextlib.nullcontext(),
) -> Generator[Work]:
    """Yield (title, job, record to keep | None) one at a time. What is still to do is looked up when its turn comes,
    since gates may change what later stages start from, and another run may work on a stage that this one shares.

    ``turn`` holds a stage's folder for this run, and keeps those it starts from where they are. One stage is worked on
    at a time, so runs cannot block each other for ever.
    """
    with turn("the base model", plan.base.folder, ()):
        yield from _base_work(plan)
    for number, name in enumerate([stage.name for stage in plan.stages], start=1):
        stage = plan.stage(name)
        with turn(f"stage {name}", stage.folder, _sources(plan, stage)):
            yield from _stage_work(plan, stage, f"[{number}/{len(plan.stages)}] {name}")
        plan = at_gates(plan, stage)
        if name == wishes.until:
            return


def _sources(plan: Plan, stage: PlannedStage) -> list[StageFolder]:
    """Folders of the store that a stage still to be trained starts from."""
    if stage.folder.is_complete:
        return []
    folders = {BASE: plan.base.folder, **{other.name: other.folder for other in plan.stages}}
    return [folders[name] for name in sorted(stage.sources & folders.keys())]


def _base_work(plan: Plan) -> Iterator[Work]:
    base = plan.base
    remove_leftovers(base.folder.path)
    if base.is_built and not base.folder.is_complete:
        yield f"[base] building {plan.loaded.recipe.model}", base_job(plan), (base.folder, _base_record(plan))
    elif not base.is_built and base.folder.read() is None:
        base.folder.begin(_base_record(plan), {"world_size": 0, "device": "none"})
        base.folder.finish("complete", "complete")
    if plan.loaded.recipe.evaluate.base_model and (job := evaluate_job(plan, None)):
        yield "[base] evaluating", job, None
    note_results(base.folder)


def _stage_work(plan: Plan, stage: PlannedStage, where: str) -> Iterator[Work]:
    for folder in (stage.folder.path, stage.folder.state):
        remove_leftovers(folder)
    if not stage.folder.is_complete:
        title = f"{where} ({stage.config.kind}, {stage.identity})"
        yield title, stage_job(plan, stage), (stage.folder, _stage_record(stage))
    _tidy(stage)
    _note_finished(plan)
    if job := evaluate_job(plan, stage):
        yield f"{where} evaluating", job, None
    note_results(stage.folder)


def _tidy(stage: PlannedStage) -> None:
    """A finished stage needs neither its resumable states nor the result it replaced."""
    for leftover in (stage.folder.state, stage.folder.path / "data", stage.folder.superseded):
        shutil.rmtree(leftover, ignore_errors=True)


def _do(job: Job, record: tuple[StageFolder, dict] | None, supervisor: Supervisor) -> None:
    if record is None:
        supervisor.run_job(job)
        return
    folder, facts = record
    folder.begin(facts, {})
    try:
        supervisor.run_job(job)
    except Stopped:
        folder.finish("running", "stopped")
        raise
    except StageFailed as error:
        folder.finish("failed", "failed", error=str(error))
        raise StageFailed(f"stage {job.name} failed.\n{error}") from None
    folder.update(inventory=inventory(folder))
    folder.finish("complete", "complete")


def _base_record(plan: Plan) -> dict:
    return {
        "name": "model",
        "kind": "base",
        "identity": plan.base.identity,
        "parent": None,
        "inputs": plan.base.inputs,
        "config": {"model": plan.loaded.recipe.model, **plan.loaded.recipe.model_args},
    }


def _stage_record(stage: PlannedStage) -> dict:
    return {
        "name": stage.name,
        "kind": stage.config.kind,
        "identity": stage.identity,
        "parent": {"name": stage.parent, "identity": stage.parent_identity},
        "inputs": stage.inputs,
        "config": stage.config.model_dump(mode="json"),
    }

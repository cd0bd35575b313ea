"""The small process per rank that runs a cascade: one fresh child per job, waits, goes on.

It imports neither torch nor vLLM. Rank 0 walks the plan and gives orders; the other ranks start their child for each
order and report how it ended. The first failing rank ends the order for all, and its error is the one shown.
"""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade_rl.orchestrator.children import Child, Children, child_environment, free_port
from cascade_rl.orchestrator.session import POLL_S, Session
from cascade_rl.processes import grace_s
from cascade_rl.store import Job
from cascade_rl.store.files import read_json
from cascade_rl.types import EXIT_RESUME, CascadeError


class StageFailed(CascadeError):
    """A job ended on some rank with an error; the text is that rank's."""


class Stopped(Exception):
    """The run was asked to stop. The text says what was not saved, and is empty where all was."""


@dataclass
class StopRequest:
    """Set by SIGTERM or SIGINT; children are told by the supervisor, which then waits for them."""

    requested_at: float | None = None

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, *_: object) -> None:
        if self.requested_at is None:
            self.requested_at = time.monotonic()

    @property
    def is_set(self) -> bool:
        return self.requested_at is not None


class Supervisor:
    """Carries out jobs with this rank's children, together with the other ranks' supervisors."""

    def __init__(self, session: Session, stop: StopRequest) -> None:
        self._session = session
        self._stop = stop
        self._grace_s = grace_s()
        self._children = Children(session.folder)

    def close(self) -> None:
        """End what waits for further jobs."""
        self._children.close()

    def run_job(self, job: Job) -> None:
        """Rank 0: one job on all ranks. Raises StageFailed, or Stopped after a clean stop."""
        info = self._session.rank_info
        order = {
            "job": job.model_dump(mode="json"),
            "address": info.master_addr,
            "port": free_port(),
        }
        self._session.give_order(order)
        own = self._carry_out(order)
        self._session.report(own)
        reports = self._await_reports()
        failures = [r for r in reports.values() if r["outcome"] == "failed"]
        if failures:
            first = min(failures, key=lambda report: (report["secondary"], report["time"]))
            raise StageFailed(first["message"])
        if any(report["outcome"] == "stopped" for report in reports.values()):
            raise Stopped(_unsaved(job, [rank for rank, report in reports.items() if report.get("killed")]))

    def follow(self, launcher_alive: Any) -> int:
        """Other ranks: carry out orders until rank 0 says that all is done. Returns the exit code."""

        def alive() -> None:
            if self._stop.is_set:
                raise Stopped
            launcher_alive()

        while True:
            try:
                order = self._session.next_order(alive)
            except Stopped:
                return EXIT_RESUME
            if "exit" in order:
                return int(order["exit"])
            self._session.report(self._carry_out(order))

    def dismiss(self, exit_code: int) -> None:
        """Rank 0: let the other ranks go."""
        self._session.give_order({"exit": exit_code})

    def _carry_out(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Start this rank's child and see it through; returns this rank's report."""
        info = self._session.rank_info
        label = f"{self._session.number:06d}-{info.rank}-{uuid.uuid4().hex[:6]}"
        job_file = self._session.folder / f"job-{label}.json"
        outcome_file = self._session.folder / f"outcome-{label}.json"
        job_file.write_text(Job.model_validate(order["job"]).model_dump_json())
        environment = child_environment(info.rank, info.world_size, info.local_rank, order["address"], order["port"])
        child = self._children.start(job_file, outcome_file, environment)
        try:
            ended_here = self._wait(child)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        return self._describe(child.wait() or 0, read_json(outcome_file), Path(order["job"]["folder"]), ended_here)

    def _wait(self, child: Child) -> bool:
        """Until the child ends. True when it was ended because another rank failed."""
        told = False
        while child.poll() is None:
            if self._stop.is_set:
                assert self._stop.requested_at is not None
                if not told:
                    child.terminate()
                    told = True
                elif time.monotonic() - self._stop.requested_at > self._grace_s:
                    child.kill()
            leads = self._session.rank_info.rank == 0 and not self._session.is_cancelled
            if leads and any(report["outcome"] == "failed" for report in self._session.reports().values()):
                self._session.cancel()
            if self._session.is_cancelled:
                # The failing rank's peers may hang in a collective; a moment for their own message, then out.
                deadline = time.monotonic() + 2.0
                while child.poll() is None and time.monotonic() < deadline:
                    time.sleep(POLL_S)
                if child.poll() is None:
                    child.kill()
                    child.wait()
                return True
            time.sleep(POLL_S)
        return False

    def _describe(self, code: int, outcome: Mapping[str, Any] | None, folder: Path, ended_here: bool) -> dict[str, Any]:
        rank = self._session.rank_info.rank
        if code == 0:
            return {"outcome": "done", "rank": rank}
        if code == EXIT_RESUME or (self._stop.is_set and code in (-signal.SIGKILL, -signal.SIGTERM)):
            return {"outcome": "stopped", "rank": rank, "killed": code != EXIT_RESUME and not ended_here}
        if outcome is not None:
            return {"outcome": "failed", "rank": rank, **outcome}
        where = folder / "logs"
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; the kernel kills like this when memory runs out" if -code == signal.SIGKILL else ""
            message = f"the process of rank {rank} was ended by {name}{hint}. Its output is in {where}"
        else:
            message = f"the process of rank {rank} ended with exit code {code}. Its output is in {where}"
        return {
            "outcome": "failed",
            "rank": rank,
            "message": message,
            "time": time.time(),
            "secondary": ended_here,
        }

    def _await_reports(self) -> dict[int, dict[str, Any]]:
        """Every rank's report on the order in hand; a failure or a stop anywhere ends the others."""
        while True:
            reports = self._session.reports()
            if len(reports) == self._session.rank_info.world_size:
                return reports
            if any(report["outcome"] != "done" for report in reports.values()):
                self._session.cancel()
            time.sleep(POLL_S)


def _unsaved(job: Job, killed: list[int]) -> str:
    """What to say of ranks that were killed because they did not leave in time."""
    if not killed:
        return ""
    ranks = f"rank{'s' if len(killed) > 1 else ''} {', '.join(map(str, sorted(killed)))}"
    found = sorted(job.stage_folder.state.glob("step-??????"))
    resumed = f"step {int(found[-1].name.removeprefix('step-'))}" if found else "its first step"
    left = f"{ranks} did not save and leave within {grace_s():g} s (CASCADE_RL_GRACE_S)"
    return f"{left}: {job.name} will go on from {resumed}"

"""Our side: the RL stage itself (``cascade_rl.stages.rl``), let loose step by step. A process of its own.

``python -m benchmarks.grpo.ours SETTINGS.json``: what ``Side`` starts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.grpo.problem import Problem, stage_section
from benchmarks.grpo.turns import Turns
from cascade_rl.rollout.engine import Request
from cascade_rl.stages.context import Context, StopFlag
from cascade_rl.store import Job
from cascade_rl.training import ranks
from cascade_rl.types import Rollout


class RecordingEngine:
    """The stage's engine, and what it was asked for and answered in this step; probes, which ``generate``, apart."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._asked: dict[tuple[str, int], Request] = {}
        self._drawn: list[Rollout] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def submit(self, request: Request) -> None:
        self._asked[request.key] = request
        self._engine.submit(request)

    def poll(self, timeout_s: float = 0.0) -> list[Rollout]:
        drawn = self._engine.poll(timeout_s)
        self._drawn += drawn
        return drawn

    def take(self) -> list[tuple[Request, Rollout]]:
        """What was drawn since the last call, and forget it."""
        pairs = [(self._asked[rollout.prompt_id, rollout.index], rollout) for rollout in self._drawn]
        self._asked, self._drawn = {}, []
        return pairs


class SteppedContext(Context):
    """A stage's context whose tracker waits, after each step, until it is told to go on."""

    turns: Turns
    wait_file: Path
    requests_file: Path | None
    recording: RecordingEngine

    def engine(self, *args: Any, **kwargs: Any) -> Any:
        self.recording = RecordingEngine(super().engine(*args, **kwargs))
        return self.recording

    def tracker(self, resume_step: int) -> Any:
        self._sinks = super().tracker(resume_step)
        self._await_turn()
        return self

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """As a ``Tracker``: the step is over."""
        self._sinks.log(step, metrics)
        pairs = self.recording.take()
        if self.requests_file is not None:
            self.requests_file.write_text(json.dumps([_plain(*pair) for pair in pairs]))
        times = {name.removeprefix("time/"): value for name, value in metrics.items() if name.startswith("time/")}
        self.turns.report(
            {
                "lengths": [len(rollout.token_ids) for _, rollout in pairs],
                "generation_s": times["rollout_s"],
                "reward_s": times["reward_wait_s"],
                "sync_s": times["sync_s"],
                "update_s": times["train_s"],
                "metrics": {name: value for name, value in metrics.items() if isinstance(value, int | float)},
            }
        )
        self._await_turn()

    def close(self) -> None:
        """As a ``Tracker``."""
        self._sinks.close()

    def _await_turn(self) -> None:
        self.wait_file.write_text(str(self.turns.wait()["reward_s"]))


def _plain(request: Request, rollout: Rollout) -> dict[str, Any]:
    return {
        "prompt_ids": list(request.prompt_token_ids),
        "completion_ids": list(rollout.token_ids),
        "seed": request.seed,
        "order": [request.prompt_id, request.index],
    }


def make_job(problem: Problem, folder: Path, wait_file: Path) -> Job:
    return Job.model_validate(
        {
            "task": "stage",
            "run": "benchmark",
            "name": "benchmark",
            "identity": "benchmark",
            "folder": folder,
            "recipe_path": folder / "recipe.yaml",
            "model": problem.model,
            "checkpoint": problem.model,
            "stage": stage_section(problem, wait_file),
            "template": {},
            "seed": problem.seed,
            "dtype": "float32",
        }
    )


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(settings["folder"])
    wait_file = folder / "wait.txt"
    wait_file.write_text("0")
    from cascade_rl.stages import rl

    context = SteppedContext(make_job(Problem.read(settings), folder / "stage", wait_file), ranks.join(), StopFlag())
    context.turns, context.wait_file = Turns(), wait_file
    context.requests_file = folder / "requests.json" if settings.get("keep_requests") else None
    rl.run(context)


if __name__ == "__main__":
    main()

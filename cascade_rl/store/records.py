"""The store: every stage ever finished, and the runs that used them. Answers "is this stage done, from what?"

runs/<run>/run.json                  what was asked: ordered stage identities
store/<stage>-<identity>/stage.json  status, parent, inputs in clear, attempts
                         checkpoint/ Hugging Face format
                         state/      what resuming needs, while the stage runs
                         metrics.jsonl, rollouts/, evals/, logs/
"""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cascade_rl.store.files import damaged, read_record, write_json
from cascade_rl.types import CascadeError

RUN_KEYS = {"name": (str,), "recipe_path": (str,), "base": (dict,), "stages": (list,)}
"""What ``run.json`` has at least, and the types of the values."""
BASE_KEYS = {"name": (str,), "identity": (str,), "directory": (str,), "model": (str,)}
ENTRY_KEYS = {"name": (str,), "identity": (str,), "directory": (str,), "kind": (str,), "parent": (str, type(None))}
"""What it has of the base model and of each stage."""
BENCHMARK_KEYS = {"name": (str,), "identity": (str,)}
_NUMBER, _TEXT_OR_NONE = (int, float), (str, type(None))
_NUMBER_OR_NONE = (int, float, type(None))
GATE_KEYS = {
    "stage": (str,), "benchmark": (str,), "verdict": (str,), "message": (str,), "value": _NUMBER, "interval": _NUMBER,
    "compared_to": _TEXT_OR_NONE, "exception": _TEXT_OR_NONE,
    **dict.fromkeys(
        ("compared_value", "compared_interval", "drop", "chance", "allowed", "min_value"), _NUMBER_OR_NONE
    ),
}  # fmt: skip
"""What it has of each decision of a gate."""
LISTS = {"finished": str, "gates": dict, "benchmarks": dict}
"""Lists that it may have, and the types of their items."""
STAGE_KEYS = {"config": dict, "inputs": dict, "versions": dict, "attempts": list, "evaluations": list}
"""What ``stage.json`` may have, and the types of the values."""
LONGEST_S = 1e12
"""Seconds (30,000 years) beyond which a stage's time is damaged."""
Status = Literal["pending", "running", "complete", "failed"]


def now() -> str:
    """This instant, ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class StageFolder:
    """One stage's place in the store. ``stage.json`` says complete last, so a complete one is whole."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def optimizer(self) -> Path:
        """The final optimizer moments, kept only where a later stage inherits them."""
        return self.path / "optimizer.pt"

    @property
    def adapter(self) -> Path:
        """Of a stage that trained low-rank adapters: they alone, in float32. The checkpoint has them merged in."""
        return self.path / "adapter"

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def trace(self) -> Path:
        """Who worked and who waited in each step."""
        return self.path / "trace.jsonl"

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts"

    def rollout_files(self) -> dict[int, Path]:
        """Step -> file of its rollouts, in order."""
        return {
            int(number): file
            for file in sorted(self.rollouts.glob("step-??????.parquet"))
            if (number := file.stem.removeprefix("step-")).isascii() and number.isdigit()
        }

    @property
    def evals(self) -> Path:
        return self.path / "evals"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def checksums(self) -> Path:
        """Sizes and hashes of the result (``cascade_rl.store.checksums``)."""
        return self.path / "checksums.json"

    @property
    def superseded(self) -> Path:
        """Where ``--from`` keeps the finished result while it is computed anew."""
        return self.path.with_name(f"{self.path.name}.superseded")

    @property
    def lock(self) -> Path:
        """Held by whoever works on the stage. It lies outside of the folder, which may be renamed or deleted."""
        return self.path.parent / ".locks" / self.path.name

    @property
    def reading_lock(self) -> Path:
        """Held by all whose stages start from this one's result, so that nobody sets it aside meanwhile."""
        return self.path.parent / ".locks" / f"{self.path.name}.reading"

    def read(self) -> dict[str, Any] | None:
        """``stage.json``, or None where the stage was never started. Raises CascadeError for a damaged one."""
        path = self.path / "stage.json"
        record = read_record(path, {"status": str}) or {}
        for key, kind in STAGE_KEYS.items():
            if key in record and not isinstance(record[key], kind):
                raise CascadeError(damaged(path, f"`{key}` is of another type"))
        if not all(isinstance(attempt, dict) for attempt in record.get("attempts", [])):
            raise CascadeError(damaged(path, "an entry of `attempts` is no JSON object"))
        seconds = record.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float | None) or (seconds or 0) > LONGEST_S:
            raise CascadeError(damaged(path, "`seconds` is no number, or too large a one"))
        return record or None

    def look(self) -> tuple[dict[str, Any], str | None]:
        """``stage.json``, empty where there is none to be read, and what is wrong with it (None: nothing)."""
        try:
            return self.read() or {}, None
        except CascadeError as error:
            return {}, str(error)
        except OSError as error:
            return {}, f"{self.path / 'stage.json'} cannot be read: {error.strerror}"

    @property
    def status(self) -> Status:
        record = self.read()
        return record["status"] if record else "pending"

    @property
    def is_complete(self) -> bool:
        return self.status == "complete"

    def begin(self, record: Mapping[str, Any], attempt: Mapping[str, Any]) -> None:
        """Note that an attempt starts. Earlier attempts stay on record."""
        attempts = (self.read() or {}).get("attempts", [])
        attempts = [{"outcome": "killed", **a} if not a.get("outcome") else a for a in attempts]
        write_json(
            self.path / "stage.json",
            {
                **record,
                "status": "running",
                "attempts": [*attempts, {"started": now(), "host": platform.node(), **attempt}],
            },
        )

    def finish(self, status: Status, outcome: str, **more: Any) -> None:
        """Note how the attempt in progress ended."""
        record = self.read()
        if record is None:
            raise CascadeError(f"{self.path / 'stage.json'} vanished while its stage ran")
        record["attempts"][-1].update({"ended": now(), "outcome": outcome, **more})
        record["status"] = status
        record["seconds"] = round(sum(_seconds(a) for a in record["attempts"]), 1)
        write_json(self.path / "stage.json", record)

    def update(self, **fields: Any) -> None:
        """Add facts to the record (versions, device, the step gone on from)."""
        record = self.read() or {}
        write_json(self.path / "stage.json", {**record, **fields})


def _seconds(attempt: Mapping[str, Any]) -> float:
    if not attempt.get("ended"):
        return 0.0
    start, end = (datetime.datetime.fromisoformat(attempt[key]) for key in ("started", "ended"))
    return (end - start).total_seconds()


def _require(path: Path, value: Any, keys: Mapping[str, tuple[type, ...]], where: str = "") -> None:
    """Raise CascadeError naming the first of ``keys`` that ``value`` lacks, or has with another type."""
    if not isinstance(value, dict):
        raise CascadeError(damaged(path, f"`{where.rstrip('.')}` is no JSON object"))
    for key, kinds in keys.items():
        if key not in value or not isinstance(value[key], kinds):
            raise CascadeError(damaged(path, f"`{where}{key}` is not there, or of another type"))


@dataclass(frozen=True)
class Store:
    """The two folders ``runs`` and ``store`` under a root."""

    root: Path

    def stage(self, name: str, identity: str) -> StageFolder:
        return StageFolder(self.root / "store" / f"{name}-{identity}")

    def run_folder(self, run: str) -> Path:
        return self.root / "runs" / run

    def read_run(self, run: str) -> dict[str, Any] | None:
        """``run.json`` of ``run``, or None. Raises CascadeError for a damaged one."""
        path = self.run_folder(run) / "run.json"
        record = read_record(path, {})
        if record is None:
            return None
        _require(path, record, RUN_KEYS)
        for key, kind in LISTS.items():
            items = record.get(key, [])
            if not isinstance(items, list) or not all(isinstance(item, kind) for item in items):
                raise CascadeError(damaged(path, f"`{key}` is of another type"))
        _require(path, record["base"], BASE_KEYS, "base.")
        for key, keys in (("stages", ENTRY_KEYS), ("benchmarks", BENCHMARK_KEYS), ("gates", GATE_KEYS)):
            for number, entry in enumerate(record.get(key, [])):
                _require(path, entry, keys, f"{key}[{number}].")
        return record

    def stage_of(self, run: str, stage: str) -> StageFolder:
        """The folder of ``run``'s stage of that name. Raises CascadeError listing the names there are."""
        stages = {entry["name"]: entry for entry in (self.read_run(run) or {"stages": []})["stages"]}
        if stage not in stages:
            raise CascadeError(f"run {run} has no stage {stage!r}; its stages are: {', '.join(stages)}")
        return StageFolder(self.root / stages[stage]["directory"])

    def rollouts_of(self, run: str, stage: str) -> dict[int, Path]:
        """Step -> file of its rollouts. Raises CascadeError where there is no such stage, or no rollout."""
        folder = self.stage_of(run, stage)
        files = folder.rollout_files()
        if not files and not folder.path.is_dir():
            raise CascadeError(
                f"stage {stage} of run {run} has no rollouts: there is no folder {folder.path} (not begun yet, or gone)"
            )
        if not files:
            raise CascadeError(f"stage {stage} of run {run} has no rollouts (only RL stages that took a step have)")
        return files

    def write_run(self, run: str, record: Mapping[str, Any]) -> None:
        write_json(self.run_folder(run) / "run.json", dict(record))

    def runs(self) -> list[str]:
        """Names of all runs, oldest first."""
        folder = self.root / "runs"
        found = [entry for entry in folder.iterdir() if (entry / "run.json").is_file()] if folder.is_dir() else []
        return [entry.name for entry in sorted(found, key=lambda entry: (entry / "run.json").stat().st_ctime)]

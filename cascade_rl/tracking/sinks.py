"""Where metrics go: metrics.jsonl always, Weights & Biases and trackio when asked."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from cascade_rl.json_lines import text_lines
from cascade_rl.recipe import TrackingConfig, TrackioConfig, WandbConfig


class Sink(Protocol):
    """One destination. ``log`` must never stop training."""

    def log(self, step: int, metrics: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonlSink:
    """One JSON object a line, in step order. Lines of steps that will be done again are dropped at the start."""

    def __init__(self, path: Path, resume_step: int) -> None:
        self._path = path
        self._warned = False
        try:
            self._keep_until(resume_step)
        except OSError as error:
            self._warn(error)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        line = json.dumps({"step": step, "time": round(time.time(), 3), **{k: _number(v) for k, v in metrics.items()}})
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._warn(error)

    def close(self) -> None:
        pass

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            print(f"WARNING: metrics cannot be written to {self._path}: {error}", file=sys.stderr)
        self._warned = True

    def _keep_until(self, step: int) -> None:
        lines = text_lines(self._path) if self._path.exists() else []
        kept = []
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a torn last line
                if json.loads(line)["step"] <= step:
                    kept.append(line)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.tmp-{os.getpid()}")
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        os.replace(temporary, self._path)


class WandbSink:
    """One run per stage, grouped by cascade, with an id of its own: a resumed stage goes on in the same run."""

    def __init__(
        self, config: WandbConfig, directory: Path, *, run: str, stage: str, kind: str, identity: str, values: Any
    ) -> None:
        import wandb

        mode = config.mode
        if mode == "auto":
            mode = "online" if os.environ.get("WANDB_API_KEY") or _has_login() else "offline"
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            group=run,
            name=f"{run}/{stage}",
            id=f"{stage}-{identity}",
            job_type=kind,
            config=values,
            dir=str(directory),
            mode=mode,
            resume="allow",
        )

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._run.log({k: v for k, v in metrics.items() if isinstance(v, int | float)}, step=step)

    def close(self) -> None:
        self._run.finish()


class TrackioSink:
    """The same in trackio, which keeps its data on this machine."""

    def __init__(self, config: TrackioConfig, *, run: str, stage: str, identity: str, values: Any) -> None:
        import trackio

        self._trackio = trackio
        trackio.init(
            project=config.project, group=run, name=f"{stage}-{identity}", config=values, resume="allow", embed=False
        )

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._trackio.log({k: v for k, v in metrics.items() if isinstance(v, int | float)}, step=step)

    def close(self) -> None:
        self._trackio.finish()


class Tracker:
    """All sinks of a stage. One that fails is dropped with a warning; training goes on."""

    def __init__(self, sinks: list[Sink]) -> None:
        self._sinks = sinks

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Metrics of one step (1-based)."""
        for sink in list(self._sinks):
            self._try(sink, lambda sink=sink: sink.log(step, metrics))

    def close(self) -> None:
        for sink in list(self._sinks):
            self._try(sink, sink.close)

    def _try(self, sink: Sink, action: Any) -> None:
        try:
            action()
        except Exception as error:
            self._sinks.remove(sink)
            _warn(sink, error)


def make_tracker(
    tracking: TrackingConfig,
    directory: Path,
    *,
    run: str,
    stage: str,
    kind: str,
    identity: str,
    config: Mapping[str, Any],
    resume_step: int,
) -> Tracker:
    """The sinks a recipe asks for, writing into the stage's ``directory``."""
    sinks: list[Sink] = [JsonlSink(directory / "metrics.jsonl", resume_step)]
    values = dict(config)
    if tracking.wandb is not None:
        try:
            sinks.append(
                WandbSink(tracking.wandb, directory, run=run, stage=stage, kind=kind, identity=identity, values=values)
            )
        except Exception as error:
            _warn("wandb", error)
    if tracking.trackio is not None:
        try:
            sinks.append(TrackioSink(tracking.trackio, run=run, stage=stage, identity=identity, values=values))
        except Exception as error:
            _warn("trackio", error)
    return Tracker(sinks)


def _warn(sink: object, error: Exception) -> None:
    name = sink if isinstance(sink, str) else type(sink).__name__
    print(f"WARNING: {name} is left out from here on: {type(error).__name__}: {error}", file=sys.stderr)


def _has_login() -> bool:
    netrc = Path.home() / ".netrc"
    return netrc.is_file() and "wandb" in netrc.read_text(errors="replace")


def _number(value: Any) -> Any:
    """A plain JSON value; NaN and infinities, which JSON lacks, become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    return float(value)

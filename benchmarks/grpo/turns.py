"""Processes that take turns, step by step, so that a busy moment of the machine hits none of them alone.

Each side runs in a process of its own. Before every step it waits until it is told to go on; nobody else works
meanwhile. What a step took is measured from there to where it reports, so nothing of it can hide between two steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import REPOSITORY, environment

DESCRIPTORS = "BENCHMARK_TURN_DESCRIPTORS"


class Turns:
    """In the process of a side: ``wait`` before each step, ``report`` after it."""

    def __init__(self) -> None:
        read, write = map(int, os.environ[DESCRIPTORS].split(","))
        self._orders = os.fdopen(read, "r")
        self._reports = os.fdopen(write, "w", buffering=1)

    def wait(self) -> dict[str, Any]:
        """What the next step is to be like. Ends the process when there is no next step: nothing needs saving."""
        self._report({"waits": True})
        line = self._orders.readline()
        if not line:
            sys.stdout.flush()
            os._exit(0)
        self._start, self._cpu_start = time.perf_counter(), time.process_time()
        return json.loads(line)

    def report(self, measured: Mapping[str, Any]) -> None:
        """A step is over. ``cpu_s``, the processor's time of this process alone, is steadier on a busy machine."""
        step_s, cpu_s = time.perf_counter() - self._start, time.process_time() - self._cpu_start
        self._report({"step_s": step_s, "cpu_s": cpu_s, **measured})

    def _report(self, what: Mapping[str, Any]) -> None:
        self._reports.write(json.dumps(what) + "\n")


class Side:
    """A side's process, seen from the one that measures. A context manager; the process does not survive it."""

    def __init__(self, name: str, module: str, settings: Mapping[str, Any], folder: Path) -> None:
        """Starts ``python -m module SETTINGS.json`` with its output in ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.log = name, folder / "log.txt"
        (folder / "settings.json").write_text(json.dumps({"folder": str(folder), **settings}))
        orders, self._write = os.pipe()
        self._read, reports = os.pipe()
        with open(self.log, "w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(folder / "settings.json")],
                cwd=REPOSITORY,
                env={**environment(), DESCRIPTORS: f"{orders},{reports}"},
                pass_fds=(orders, reports),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        os.close(orders)
        os.close(reports)
        self._orders, self._reports = os.fdopen(self._write, "w", buffering=1), os.fdopen(self._read)

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *error: object) -> None:
        self._orders.close()  # the end of its orders ends it
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reports.close()

    def get_ready(self) -> None:
        """Wait until it waits for its first step."""
        assert self._next().get("waits"), f"{self.name} spoke out of turn"

    def step(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Let it take one step; what it measured."""
        self._orders.write(json.dumps(order) + "\n")
        measured = self._next()
        self.get_ready()
        return measured

    def _next(self) -> dict[str, Any]:
        line = self._reports.readline()
        if not line:
            code = self._process.wait()
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])
            raise SystemExit(f"{self.name} ended early (exit code {code}); the end of {self.log}:\n{tail}")
        return json.loads(line)

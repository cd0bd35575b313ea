"""What benchmarks share: a line about the machine, medians, tables, one thread per process."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cascade_rl.processes import cores

REPOSITORY = Path(__file__).resolve().parents[1]
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "CASCADE_RL_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Two threads on a busy machine of two cores can be 30 times slower than one, and flatter whoever runs second."""


def environment() -> dict[str, str]:
    """For child processes: one thread, this checkout's code, no rendezvous of somebody else's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RANK", "WORLD", "MASTER", "LOCAL"))}
    return {**kept, **ONE_THREAD, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}


def machine() -> dict[str, Any]:
    """What it was measured on, and how busy that was."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    kib = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": cores(),
        "memory_gib": round(kib / 2**20),
        "python": platform.python_version(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "date": time.strftime("%F"),
    }


def machine_line(found: Mapping[str, Any]) -> str:
    """``machine()`` for people."""
    load = " ".join(f"{value:g}" for value in found["load"])
    return (
        f"{found['date']}, {found['processor']}, {found['cores']} cores, {found['memory_gib']} GiB, "
        f"Python {found['python']}, one thread per process, load {load}"
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def median(values: Iterable[float]) -> float:
    """NaN where there is none."""
    found = list(values)
    return statistics.median(found) if found else float("nan")


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns wide enough for what they hold; the first one is left-aligned."""
    cells = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells)


def write_json(path: Path, found: Mapping[str, Any]) -> None:
    """What was measured, for a later look."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written to {path}")

"""How long training stands still for a state: written at once, as it was, and in the background, as it is.

    python benchmarks/saving.py [--turns 3] [--json FILE]

One policy of about 100M float32 weights with AdamW, so 1.2 GB a state. The sides take turns: **at once** writes the
files, reads them again for their hashes and goes on; **background** copies to the host's memory and goes on. ``stall``
is what training waits for; ``step`` is a training step while nothing is written, ``step meanwhile`` one beside the
writing.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0].endswith("benchmarks"):  # math.py here is not Python's math
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import shutil
import tempfile
import time
from typing import Any

import torch

from benchmarks.common import machine, machine_line, median, table, write_json
from benchmarks.trainer import ALONE, load_policy, made_up_rollouts, plain_update
from cascade_rl.models import tiny_qwen3
from cascade_rl.stages.saving import Saver
from cascade_rl.store.files import sync_file
from cascade_rl.training import state as states
from cascade_rl.training.policy import Policy

SIDES = ("at once", "background")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="states of each side, after one that is not counted")
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"machine": machine()}
    print(machine_line(found["machine"]))
    with tempfile.TemporaryDirectory(prefix="saving-") as folder:
        policy = made_up_policy(Path(folder), options.hidden, options.layers)
        found |= measure(policy, Path(folder), options.turns)
    print(f"{policy.trained_weights / 1e6:.0f}M weights, {found['bytes'] / 1e9:.2f} GB a state")
    rows = [[side, *(median(found[side][name]) for name in COLUMNS)] for side in SIDES]
    print(table(["", *COLUMNS], rows))
    print(f"load at the end: {' '.join(map(str, machine()['load']))}")
    if options.json:
        write_json(options.json, found)


COLUMNS = ("stall", "until published", "step", "step meanwhile")


def made_up_policy(folder: Path, hidden: int, layers: int) -> Policy:
    """A policy whose optimizer has moments."""
    checkpoint = folder / "model"
    tiny_qwen3.build(checkpoint, seed=1, hidden_size=hidden, layers=layers, intermediate_size=3 * hidden)
    policy = load_policy(checkpoint, 1e-5)
    train(policy)
    return policy


def train(policy: Policy) -> float:
    """One step; returns its seconds."""
    began = time.monotonic()
    update = plain_update(policy)
    update.add(policy.rows(made_up_rollouts(8, 64, 256, 16), 1024))
    policy.step(update.stats().denominator)
    return time.monotonic() - began


def measure(policy: Policy, folder: Path, turns: int) -> dict[str, Any]:
    """Seconds by side and column, a value a turn."""
    savers = {side: Saver(folder / side, ALONE, print, lambda: 0.0) for side in SIDES}
    found: dict[str, Any] = {side: {name: [] for name in COLUMNS} for side in SIDES}
    found["bytes"] = policy.state_bytes
    for turn in range(turns + 1):
        for side, save in (("at once", at_once), ("background", background)):
            alone = train(policy)
            seconds = {"step": alone, **save(savers[side], policy, turn)}
            for name, value in seconds.items() if turn else ():
                found[side][name].append(value)
            shutil.rmtree(folder / side)
    return found


def at_once(saver: Saver, policy: Policy, step: int) -> dict[str, float]:
    """Write, read again, publish."""
    began = time.monotonic()
    assert saver.save(step, lambda folder: written_and_read(policy, folder))
    seconds = time.monotonic() - began
    return {"stall": seconds, "until published": seconds}


def written_and_read(policy: Policy, folder: Path) -> states.Manifest:
    """A state's part, hashed by reading its files again."""
    files = policy.save(folder)
    for file in files:
        sync_file(file)
    return states.manifest_of(folder, files)


def background(saver: Saver, policy: Policy, step: int) -> dict[str, float]:
    """Copy, train while it is written."""
    began = time.monotonic()
    saver.take(step, policy)
    stall = time.monotonic() - began
    steps = [train(policy)]
    while saver._writing is not None and not saver._writing.ended:
        steps.append(train(policy))
    saver.settle()
    written = saver.metrics()["time/state_write_s"]
    return {"stall": stall, "until published": stall + written, "step meanwhile": median(steps)}


if __name__ == "__main__":
    main()

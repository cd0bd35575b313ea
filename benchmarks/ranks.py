"""Training on several ranks: tokens per second with one and two processes, and how evenly the work is spread.

    python benchmarks/ranks.py [--rounds 5] [--strategies ddp zero2 zero3 fsdp2]

A small Qwen3 trains on rollouts of log-normal lengths, one thread per process. Two processes train on them as they come
(every second one) and balanced, in turns; then the same under each kind of sharding. One and two processes take turns
as well. Measured imbalance is the busiest rank's time in forward and backward passes over the mean, less 1; planned is
the same by cost. The planner alone is measured at sizes of real runs. Compare ratios; two processes cannot be twice as
fast as one where they share memory bandwidth, or the machine with others.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0].endswith("benchmarks"):  # math.py here is not Python's math
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from typing import Any

from benchmarks.common import REPOSITORY, machine, machine_line
from benchmarks.trainer import load_policy, log_normal, made_up_rollouts, plain_update
from cascade_rl.models import tiny_qwen3
from cascade_rl.training.balance import TokenCost, imbalance, imbalance_of_rows, plan
from cascade_rl.training.packing import TrainingSequence, pack
from cascade_rl.training.policy import Policy
from cascade_rl.training.ranks import join, leave

SIZES = {"hidden_size": 192, "layers": 4, "intermediate_size": 512, "context": 1024}
SEQUENCES, BUDGET = 64, 1024
EIGHT_B = (7.57e9, 36 * 32 * 128)
"""Cost of a token and of a pair of tokens in a Qwen3-8B (``cascade_rl.training.balance``)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="steps by each way, after one to warm up")
    parser.add_argument("--strategies", nargs="*", default=["ddp", "zero2", "zero3", "fsdp2"])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(json.loads(options.worker))
        return
    print(machine_line(machine()), "\n")
    plans()
    with tempfile.TemporaryDirectory() as folder:
        tiny_qwen3.build(Path(folder) / "model", seed=3, **SIZES)
        turns = [(world, "ddp") for world in (1, 2, 1, 2)]
        found = [(world, launch(Path(folder), world, way, options.rounds)) for world, way in turns]
        balance(found)
        sharding(Path(folder), options.strategies, options.rounds)


def plans() -> None:
    """Imbalance by the planner at sizes of real runs, and how long it takes."""
    cost = TokenCost(*EIGHT_B)
    print(
        "planned for an 8B, lengths log-normal up to 40K tokens, rows of 64K; imbalance in % (at every row in brackets)"
    )
    print(f"{'rollouts':>9} {'ranks':>6} {'as they come':>13} {'balanced':>16} {'planner s':>10}")
    for count, ranks in ((1024, 2), (1024, 8), (1024, 64), (2048, 64), (16384, 512)):
        lengths = log_normal(count, 8000, 40_000)
        start = time.perf_counter()
        rows = plan(lengths, ranks, 65536, cost)
        seconds = time.perf_counter() - start
        before = imbalance([[[i] for i in range(rank, count, ranks)] for rank in range(ranks)], lengths, cost)
        after, at_rows = imbalance(rows, lengths, cost), imbalance_of_rows(rows, lengths, cost)
        balanced = f"{100 * after:.2f} ({100 * at_rows:.2f})"
        print(f"{count:>9} {ranks:>6} {100 * before:>13.1f} {balanced:>16} {seconds:>10.3f}")
    print()


def launch(folder: Path, world: int, strategy: str, rounds: int) -> dict[str, Any]:
    """``work`` on ``world`` processes; what the main one found."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = folder / "found.json"
    order = json.dumps({"model": str(folder / "model"), "strategy": strategy, "rounds": rounds, "out": str(out)})
    common = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    logs = [tempfile.TemporaryFile("w+") for _ in range(world)]  # noqa: SIM115 - they go with this process
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--worker", order],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": "0", "PYTHONPATH": str(REPOSITORY)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        for rank, log in enumerate(logs)
    ]
    codes = [process.wait() for process in processes]
    for code, log in zip(codes, logs, strict=True):
        if code:
            log.seek(0)
            raise SystemExit(f"a process of {strategy} on {world} ranks ended with {code}:\n{log.read()[-4000:]}")
    return json.loads(out.read_text())


def balance(found: list[tuple[int, dict[str, Any]]]) -> None:
    def median(world: int, *keys: str) -> float:
        values = [one for size, those in found if size == world for one in those["ways"][keys[0]][keys[1]]]
        return statistics.median(values)

    alone = median(1, "balanced", "tokens_per_s")
    print(f"{SEQUENCES} rollouts of 4 to 900 tokens, rows of {BUDGET}: tokens/s, and imbalance in %")
    print(f"{'':>24} {'tokens/s':>9} {'x one':>6} {'planned':>8} {'measured':>9}")
    print(f"{'one process':>24} {alone:>9.0f} {1:>6.2f} {'':>8} {'':>9}")
    for way in ("as they come", "balanced"):
        speed, planned = median(2, way, "tokens_per_s"), found[1][1]["ways"][way]["planned"]
        measured = 100 * median(2, way, "imbalance")
        print(f"{f'two, {way}':>24} {speed:>9.0f} {speed / alone:>6.2f} {100 * planned:>8.2f} {measured:>9.2f}")
    gain = median(2, "balanced", "tokens_per_s") / median(2, "as they come", "tokens_per_s")
    print(f"ratio balanced / as they come: {gain:.2f}\n")


def sharding(folder: Path, strategies: list[str], rounds: int) -> None:
    """Each strategy on two ranks, twice in turns, balanced rows."""
    found: dict[str, list[float]] = {strategy: [] for strategy in strategies}
    for strategy in strategies * 2:
        ways = launch(folder, 2, strategy, rounds)["ways"]
        found[strategy] += ways["balanced"]["tokens_per_s"]
    print("two processes, balanced, whole step with optimizer")
    first = statistics.median(found[strategies[0]]) if strategies else 0.0
    for strategy, speeds in found.items():
        speed = statistics.median(speeds)
        print(f"{strategy:>24} {speed:>9.0f} tokens/s   {speed / first:.2f} x {strategies[0]}")


def work(order: dict[str, Any]) -> None:
    """One rank: steps by each way in turns."""
    ranks = join()
    policy = load_policy(Path(order["model"]), 1e-5, ranks=ranks, strategy=order["strategy"])
    given = made_up_rollouts(SEQUENCES, 105, 900, prompt=8)
    ways: dict[str, dict[str, Any]] = {"balanced": {}, "as they come": {}}
    if policy.needs_lockstep:
        del ways["as they come"]  # its rows need not be as many on every rank
    for number in range(order["rounds"] + 1):
        for way, seen in ways.items():
            speed, unevenness, planned = step(policy, given, way)
            seen["planned"] = planned
            if number:  # the first warms up
                seen.setdefault("tokens_per_s", []).append(speed)
                seen.setdefault("imbalance", []).append(unevenness)
    if ranks.is_main:
        Path(order["out"]).write_text(json.dumps({"ways": ways}))
    leave()
    os._exit(0)  # as a stage's process ends: threads of the backends may abort a plain exit


def step(policy: Policy, given: list[TrainingSequence], way: str) -> tuple[float, float, float]:
    """(tokens/s of a whole step over all ranks, measured imbalance, planned imbalance)."""
    ranks = policy.ranks
    mine = given[ranks.rank :: ranks.world_size]
    ranks.barrier()
    start = time.perf_counter()
    rows = policy.rows(mine, BUDGET) if way == "balanced" else pack(mine, BUDGET)
    update = plain_update(policy)
    begin = time.perf_counter()
    update.add(rows)
    busy = time.perf_counter() - begin
    policy.step(update.stats().denominator)
    ranks.barrier()
    seconds = time.perf_counter() - start
    loads = ranks.gather((busy, sum(policy.cost(length) for row in rows for length in row.cu_seq_lens.diff().tolist())))
    unevenness, planned = (max(column) * len(column) / sum(column) - 1 for column in zip(*loads, strict=True))
    return sum(map(len, given)) / seconds, unevenness, planned


if __name__ == "__main__":
    main()

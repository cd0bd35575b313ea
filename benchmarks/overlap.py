"""A step that generates and then learns, against one that learns from complete groups while others generate.

    python benchmarks/overlap.py [--prompts 16] [--group 8] [--repeats 8] [--sigma 1.0]

One vLLM server process on one core, the trainer on the other, one thread each. Lengths are log-normal, so that a few
rollouts generate long after the others have ended; the same requests, seeds and weights in both, taking turns. The
gradient must be the same (up to the order in which floating-point numbers are added), and so must the weights after
the step. Expected: at most 0.75 of the time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.path[0].endswith("benchmarks"):  # math.py here is not Python's math
    sys.path[0] = str(Path(__file__).resolve().parents[1])
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.trainer import load_policy, plain_update
from cascade_rl.algorithms.advantages import advantages_of_groups
from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import EngineConfig, SamplingConfig
from cascade_rl.rollout import server_client
from cascade_rl.rollout.dedicated import Place, open_server_engine
from cascade_rl.rollout.engine import Engine, Request, request_seed
from cascade_rl.rollout.server_process import Served
from cascade_rl.training.packing import pack, training_sequence
from cascade_rl.training.policy import Policy
from cascade_rl.types import Rollout

PROMPT = tuple(range(30, 62))
SHORTEST, MEDIAN, LONGEST = 16, 64, 512


@dataclass(frozen=True)
class Outcome:
    """Of one step: its time, and of that the time in forward and backward passes; what it did to the weights."""

    seconds: float
    learning_s: float
    gradient: Tensor
    weights: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--sigma", type=float, default=1.0, help="of the logarithm of lengths")
    options = parser.parse_args()
    torch.set_num_threads(1)
    generate_to_the_end()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tiny_qwen3.build(folder / "model", seed=3, hidden_size=128, layers=6, intermediate_size=512)
        config = EngineConfig(max_num_seqs=16, max_batched_tokens=2048)
        place = Place(0, 1, 1, lambda value: [value], print, folder / "logs", folder / "shared")
        served = Served(str(folder / "model"), config, "float32", True, LONGEST + 64, True, "files")
        engine = open_server_engine(served, place, tokenizer=tiny_qwen3.build_tokenizer(), temperature=1.0)
        try:
            compare(engine, folder / "model", requests(options), options)
        finally:
            engine.close()


def compare(engine: Engine, checkpoint: Path, asked: list[Request], options: argparse.Namespace) -> None:
    """Take turns, then print medians, their ratio, and how far the two updates differ."""
    lengths = sorted(request.sampling.max_new_tokens for request in asked)
    print(
        f"{len(asked)} rollouts, {sum(lengths)} tokens, lengths {lengths[0]} to {lengths[-1]}, median "
        f"{lengths[len(lengths) // 2]}; load of the machine {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    outcomes: dict[str, list[Outcome]] = {"sequential": [], "overlapped": []}
    for turn in range(options.repeats + 1):
        for name, collect in (("sequential", sequential), ("overlapped", overlapped)):
            policy = load_policy(checkpoint, 2e-6)
            engine.load_weights(policy.named_weights(), turn)
            outcome = run(collect, engine, policy, asked, options.group)
            if turn:  # the first one warms up
                outcomes[name].append(outcome)
                print(f"  {name:10s} {outcome.seconds:.2f} s, learning {outcome.learning_s:.2f} s of it", flush=True)
    first, second = outcomes["sequential"][0], outcomes["overlapped"][0]
    seconds = {name: statistics.median(o.seconds for o in found) for name, found in outcomes.items()}
    print(
        f"sequential {seconds['sequential']:.2f} s, overlapped {seconds['overlapped']:.2f} s: ratio "
        f"{seconds['overlapped'] / seconds['sequential']:.3f}"
    )
    print(f"gradients differ by {difference(first.gradient, second.gradient):.1e} of the largest entry,")
    print(f"weights after the step by {float((first.weights - second.weights).abs().max()):.1e}")


Collect = Callable[[Engine, list[Request], Callable[[list[Rollout]], None], int], None]


def sequential(engine: Engine, asked: list[Request], learn: Callable[[list[Rollout]], None], size: int) -> None:
    """Learn when all has been generated."""
    learn(sorted(engine.generate(asked), key=lambda rollout: (int(rollout.prompt_id), rollout.index)))


def overlapped(engine: Engine, asked: list[Request], learn: Callable[[list[Rollout]], None], size: int) -> None:
    """Learn from each group once it is complete."""
    groups: dict[str, list[Rollout]] = {}
    for request in asked:
        engine.submit(request)
    while engine.in_flight:
        for rollout in engine.poll(1.0):
            group = groups.setdefault(rollout.prompt_id, [])
            group.append(rollout)
            if len(group) == size:
                learn(sorted(group, key=lambda each: each.index))


def run(collect: Collect, engine: Engine, policy: Policy, asked: list[Request], size: int) -> Outcome:
    """One step from requests to changed weights."""
    update = plain_update(policy)
    prompts = {request.prompt_id: request.prompt_token_ids for request in asked}
    learning: list[float] = []

    def learn(rollouts: list[Rollout]) -> None:
        begun = time.perf_counter()
        groups = [rollouts[start : start + size] for start in range(0, len(rollouts), size)]
        rewards = [[float(sum(rollout.token_ids) % 2) for rollout in group] for group in groups]
        rows = [
            training_sequence(prompts[rollout.prompt_id], rollout.token_ids, rollout.logprobs, advantage)
            for group, row in zip(groups, advantages_of_groups(rewards), strict=True)
            for rollout, advantage in zip(group, row, strict=True)
        ]
        update.add(pack(rows, 2048))
        learning.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    collect(engine, asked, learn, size)
    stats = update.stats()
    gradient = flat([p.grad for p in policy.model.parameters() if p.grad is not None]) / stats.denominator
    policy.step(stats.denominator)
    seconds = time.perf_counter() - begun
    if stats.logprob_gap_max > 1e-4:
        raise SystemExit(f"trainer and engine differ by {stats.logprob_gap_max:.2g} per token")
    return Outcome(seconds, sum(learning), gradient, flat([p.detach() for p in policy.model.parameters()]))


def requests(options: argparse.Namespace) -> list[Request]:
    """In submission order, lengths drawn by a fixed seed."""
    rng = random.Random(5)
    return [
        Request(
            str(prompt), index, (*PROMPT, 60 + prompt), request_seed("overlap", prompt, index),
            SamplingConfig(
                max_new_tokens=min(LONGEST, max(SHORTEST, round(rng.lognormvariate(math.log(MEDIAN), options.sigma))))
            ),
        )
        for prompt in range(options.prompts)
        for index in range(options.group)
    ]  # fmt: skip


def generate_to_the_end() -> None:
    """Ask servers to ignore end-of-turn tokens: rollouts are as long as they were meant to be."""
    as_in_training = server_client.sampling_fields
    server_client.sampling_fields = lambda *given: as_in_training(*given) | {"stop_token_ids": []}


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1).double() for tensor in tensors])


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max())


if __name__ == "__main__":
    main()

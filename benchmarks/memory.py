"""Log-probs, entropy and gradient of a policy-gradient loss at a large vocabulary: peak memory and time.

    python benchmarks/memory.py [--tokens 8192] [--vocabulary 151936] [--hidden 64] [--rounds 2]

Ways: ``plain`` (log_softmax over all logits, no entropy), ``TRL`` (the tiled head of the installed TRL in its own
setting, with the entropy that its GRPO trainer asks for), ``ours`` (``fused_token_loss``, with entropy). Each
measurement is a process of its own, float32, one thread; the ways take turns, and medians are shown. Memory is the
resident peak of one forward and backward pass above what the process held before it; hidden states and head are in
what it held, their gradients in the peak. Seconds are the process's own processor time, which another program on the
machine moves less than the clock on the wall.

Plain log-probs need about three tables of tokens x vocabulary. Where that does not fit the memory at hand they are
measured at half the tokens, or a quarter, and the line says so: what was not measured is not printed.
"""

from __future__ import annotations

import sys

sys.path[:] = [place for place in sys.path if not place.endswith("benchmarks")]  # math.py here is not Python's math

import argparse
import contextlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLAIN_TABLES = 3.2
"""Tables [T, V] that plain log-probs hold at once, with something to spare."""
SPARE_BYTES = 2 * 10**9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # one way, in this process
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.tokens, options.vocabulary, options.hidden)))
        return
    print(f"{options.hidden} hidden, float32, one thread, TRL {importlib.metadata.version('trl')}")
    compare(options.tokens, options.vocabulary, options.hidden, options.rounds)
    print("\nours by tokens:")
    for tokens in (options.tokens // 4, options.tokens // 2, options.tokens):
        show("ours", tokens, options.vocabulary, [started("ours", tokens, options.vocabulary, options.hidden)])
    print("\nours by vocabulary:")
    for vocabulary in (32_000, options.vocabulary, 262_144):
        show(
            "ours", options.tokens // 4, vocabulary, [started("ours", options.tokens // 4, vocabulary, options.hidden)]
        )


def compare(tokens: int, vocabulary: int, hidden: int, rounds: int) -> None:
    fewer = tokens
    while fewer * vocabulary * 4 * PLAIN_TABLES + SPARE_BYTES > available_bytes():
        fewer //= 2
    sizes = {"plain": fewer, "TRL": tokens, "ours": tokens}
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in sizes}
    for _ in range(rounds):
        for way, count in sizes.items():
            found[way].append(started(way, count, vocabulary, hidden))
    print(f"\n{tokens} tokens x {vocabulary} words, forward and backward, median of {rounds}, taking turns:")
    for way, count in sizes.items():
        note = "" if count == tokens else f"   (at {count} tokens: {tokens} need more memory than there is)"
        show(way, count, vocabulary, found[way], note)
    agree(found, sizes)
    memory, seconds = ({way: median(runs, key) for way, runs in found.items()} for key in ("peak", "seconds"))
    seconds["plain"] *= tokens / fewer
    at_least = "" if fewer == tokens else f" (plain at {fewer} tokens, so at least)"
    print(f"memory: plain / ours {memory['plain'] / memory['ours']:.1f}{at_least}, expected at least 5")
    print(f"memory: TRL / ours   {memory['TRL'] / memory['ours']:.1f}, expected at least 1")
    print(f"time:   plain / ours {seconds['plain'] / seconds['ours']:.1f} per token")
    print(f"time:   TRL / ours   {seconds['TRL'] / seconds['ours']:.1f}, expected at least 1")


def agree(found: dict[str, list[dict[str, Any]]], sizes: dict[str, int]) -> None:
    """The ways must compute the same: norms of both gradients, where they were given the same tokens."""
    for way in ("plain", "TRL"):
        if sizes[way] == sizes["ours"]:
            for ours, theirs in zip(found["ours"][0]["norms"], found[way][0]["norms"], strict=True):
                assert abs(ours - theirs) < 1e-4 * abs(theirs), f"{way} computes something else: {theirs}, ours {ours}"


def median(runs: list[dict[str, Any]], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def show(way: str, tokens: int, vocabulary: int, runs: list[dict[str, Any]], note: str = "") -> None:
    peak, seconds = median(runs, "peak"), median(runs, "seconds")
    print(
        f"{way:6}{tokens:7} tokens{vocabulary:8} words{peak / 1e9:8.2f} GB{seconds:8.1f} s"
        f"{1000 * seconds / tokens:8.2f} s per 1,000 tokens{note}",
        flush=True,
    )


def started(way: str, tokens: int, vocabulary: int, hidden: int) -> dict[str, Any]:
    """``measure`` in a fresh process of one thread."""
    sizes = [f"--tokens={tokens}", f"--vocabulary={vocabulary}", f"--hidden={hidden}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, f"--measure={way}", *sizes], env=environment, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"{way} at {tokens} tokens ended with {done.returncode} (-9: not enough memory)")
    return json.loads(done.stdout.splitlines()[-1])


def measure(way: str, tokens: int, vocabulary: int, hidden: int) -> dict[str, Any]:
    """Peak bytes above the start, seconds, and norms of the gradients of hidden states and head."""
    import torch

    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out, this process goes, and no other
    torch.set_num_threads(1)
    run = ways()[way]
    states, head, targets, advantages = problem(tokens, vocabulary, hidden)
    run(*problem(8, 256, hidden))  # what is loaded at the first call is not what is measured
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, begun = status_bytes("VmRSS"), time.process_time()
    run(states, head, targets, advantages)
    seconds = time.process_time() - begun
    peak = status_bytes("VmHWM") - before
    return {"peak": peak, "seconds": seconds, "norms": [float(states.grad.norm()), float(head.grad.norm())]}


def problem(tokens: int, vocabulary: int, hidden: int):
    """Hidden states [T, H], head [V, H], targets [T] and advantages [T], the same for every way."""
    import torch

    generator = torch.Generator().manual_seed(0)
    states = torch.randn(tokens, hidden, generator=generator).requires_grad_()
    head = torch.randn(vocabulary, hidden, generator=generator).mul_(hidden**-0.5).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    return states, head, targets, torch.randn(tokens, generator=generator)


def ways() -> dict[str, Callable[..., None]]:
    import torch
    import trl.trainer.utils as trl_utils  # imported in the backward pass otherwise
    from trl.kernels import ChunkedLogProbFunction

    from cascade_rl.algorithms.logprobs import fused_token_loss

    def plain(states, head, targets, advantages):
        logprobs = torch.log_softmax(states @ head.T, dim=1).gather(1, targets[:, None]).squeeze(1)
        (-advantages * logprobs).sum().backward()

    def tiled(states, head, targets, advantages):
        width, outputs = trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE, ("log_probs", "entropy")
        logprobs, *_ = ChunkedLogProbFunction.apply(states, head, None, targets, 1.0, width, None, 1.0, outputs)
        (-advantages * logprobs).sum().backward()

    def ours(states, head, targets, advantages):
        loss, _ = fused_token_loss(states, head, targets, lambda part, logprobs, *_: -advantages[part] * logprobs)
        loss.backward()

    return {"plain": plain, "TRL": tiled, "ours": ours}


def status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name + ":")).split()[1])


def available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])


if __name__ == "__main__":
    main()

"""Weights from the trainer to the engine: seconds per GB, and the share of a small step.

    python benchmarks/sync.py [--hidden 768] [--layers 8] [--syncs 5] [--rollouts 32] [--tokens 128]

Two engines, one after the other, each with one thread: vLLM in the trainer's process, to which weights are streamed,
and a vLLM server process, which reads them from a folder in memory. The step they are a share of is small on purpose
(32 rollouts of 128 tokens, as in grpo_vs_trl.py, where real ones have thousands of either): generation, then one
forward and backward pass. Each sync is proven: trainer and engine must then agree about what the engine samples.
Expected: at most 2% of the step.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.path[0].endswith("benchmarks"):  # math.py here is not Python's math
    sys.path[0] = str(Path(__file__).resolve().parents[1])
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.trainer import load_policy, plain_update
from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import EngineConfig, SamplingConfig
from cascade_rl.rollout.dedicated import Place, open_server_engine
from cascade_rl.rollout.engine import Engine, Request, request_seed
from cascade_rl.rollout.server_process import Served
from cascade_rl.rollout.vllm_engine import VllmEngine
from cascade_rl.stages.checkpoints.handover import probe_logprobs
from cascade_rl.training.packing import pack, training_sequence
from cascade_rl.training.policy import Policy

PROMPT = tuple(range(30, 62))
LENGTH = 256
KINDS = {"in process, streamed": "colocated", "server, through files": "dedicated"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--syncs", type=int, default=5)
    parser.add_argument("--rollouts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tiny_qwen3.build(
            folder / "model", seed=3, hidden_size=options.hidden, layers=options.layers,
            intermediate_size=4 * options.hidden,
        )  # fmt: skip
        policy = load_policy(folder / "model", 1e-3)
        gigabytes = sum(weight.nbytes for _, weight in policy.named_weights()) / 1e9
        print(f"{gigabytes:.2f} GB of float32 weights; load of the machine {os.getloadavg()[0]:.1f}", flush=True)
        for name, placement in KINDS.items():
            with engine_of(placement, folder) as engine:
                measure(name, engine, policy, gigabytes, options)


def measure(name: str, engine: Engine, policy: Policy, gigabytes: float, options: argparse.Namespace) -> None:
    """Print one engine's figures: medians."""
    syncs, steps = [], []
    for version in range(options.syncs + 1):
        nudge(policy)
        begun = time.perf_counter()
        engine.load_weights(policy.named_weights(), version)
        syncs.append(time.perf_counter() - begun)
        refuse_others(engine, policy)
        if version < 3:
            begun = time.perf_counter()
            step(engine, policy, options, version)
            steps.append(time.perf_counter() - begun)
    sync, work = statistics.median(syncs[1:]), statistics.median(steps[1:])  # the first of each warms up
    print(
        f"{name:22s} sync {sync:.3f} s = {sync / gigabytes:.2f} s/GB; step without it {work:.2f} s; "
        f"share {100 * sync / (sync + work):.2f}%",
        flush=True,
    )


def step(engine: Engine, policy: Policy, options: argparse.Namespace, version: int) -> None:
    """Generate and learn; the gradient is dropped."""
    sampling = SamplingConfig(max_new_tokens=options.tokens)
    prompts = [(*PROMPT, 60 + i % 100) for i in range(options.rollouts)]
    requests = [Request(str(i), 0, ids, request_seed(version, i), sampling) for i, ids in enumerate(prompts)]
    rollouts = engine.generate(requests)
    rows = [training_sequence(prompts[int(r.prompt_id)], r.token_ids, r.logprobs, 1.0) for r in rollouts]
    update = plain_update(policy)
    update.add(pack(rows, 2048))
    policy.discard()


def nudge(policy: Policy) -> None:
    """Weights that no engine has seen."""
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.01)


def refuse_others(engine: Engine, policy: Policy) -> None:
    prompts = [(*PROMPT, 60 + i) for i in range(2)]
    gap = probe_logprobs(policy, engine, prompts, sampling=SamplingConfig(max_new_tokens=4), engine_temperature=1.0)
    if gap > 1e-4:
        raise SystemExit(f"the engine does not serve the trainer's weights: log-probs differ by {gap:.2g}")


@contextmanager
def engine_of(placement: str, folder: Path) -> Iterator[Engine]:
    config = EngineConfig(max_num_seqs=64, max_batched_tokens=2048)
    tokenizer = tiny_qwen3.build_tokenizer()
    engine: Engine
    if placement == "colocated":
        engine = VllmEngine(
            folder / "model", config, dtype="float32", cpu=True, world_size=1, max_model_len=LENGTH, renormalised=True,
            temperature=1.0, tokenizer=tokenizer,
        )  # fmt: skip
    else:
        place = Place(0, 1, 1, lambda value: [value], print, folder / "logs", folder / "shared")
        served = Served(str(folder / "model"), config, "float32", True, LENGTH, True, "files")
        engine = open_server_engine(served, place, tokenizer=tokenizer, temperature=1.0)
    try:
        yield engine
    finally:
        engine.close()


if __name__ == "__main__":
    main()

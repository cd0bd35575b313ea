"""Forward and backward passes over rollouts of uneven lengths: packed rows, padded batches, one at a time.

    python benchmarks/packing.py [--rollouts 32] [--median 105] [--longest 900] [--rounds 5]

One process, one thread, float32, one model; the ways take turns, and medians of processor time are shown. **padded** is
transformers as most trainers call it: 8 rollouts to a batch, padded to its longest, a mask, plain log-probs of the
completions. **one at a time** and **packed** are ours, the latter in rows of 2,048 tokens. Prompts differ, so that none
is shared. All three must give the same gradient. Expected: packed at least 2.5 times as fast as padded, 1.5 times as
fast as one at a time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.path[0].endswith("benchmarks"):  # math.py here is not Python's math
    sys.path[0] = str(Path(__file__).resolve().parents[1])
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.common import machine, machine_line, median, table
from benchmarks.trainer import load_policy, made_up_rollouts, plain_update
from cascade_rl.models import tiny_qwen3
from cascade_rl.training.packing import MicroBatch, TrainingSequence, pack, pack_row
from cascade_rl.training.policy import Policy

BATCH, BUDGET, PROMPT = 8, 2048, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=32)
    parser.add_argument("--median", type=int, default=105, help="tokens of a completion")
    parser.add_argument("--longest", type=int, default=900)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine_line(machine()))
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        tiny_qwen3.build(model, seed=3, hidden_size=256, layers=4, intermediate_size=1024, context=1024)
        compare(model, made_up_rollouts(options.rollouts, options.median, options.longest, PROMPT), options.rounds)


def compare(checkpoint: Path, given: Sequence[TrainingSequence], rounds: int) -> None:
    ours = load_policy(checkpoint, 1e-6, chunk_tokens=None)
    ways: dict[str, Callable[[], Tensor]] = {
        "padded": Padded(checkpoint, given).gradient,
        "one at a time": lambda: gradient(ours, [pack_row([sequence]) for sequence in given]),
        "packed": lambda: gradient(ours, pack(given, BUDGET)),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    expected = ways["padded"]()
    for number in range(rounds + 1):
        for way, compute in ways.items():
            begun = time.process_time()
            found = compute()
            if number:  # the first one warms up
                seconds[way].append(time.process_time() - begun)
            gap = float((found - expected).abs().max() / expected.abs().max())
            if gap > 1e-5:
                raise SystemExit(f"{way} computes another gradient: {gap:.2g} of its largest entry apart")
    tokens = sum(map(len, given))
    print(f"{len(given)} rollouts, {tokens} tokens, the longest {max(map(len, given))}")
    medians = {way: median(values) for way, values in seconds.items()}
    print(table(("", "seconds", "tokens/s"), [(way, value, round(tokens / value)) for way, value in medians.items()]))
    print(f"padded / packed        {medians['padded'] / medians['packed']:.2f}, expected at least 2.5")
    print(f"one at a time / packed {medians['one at a time'] / medians['packed']:.2f}, expected at least 1.5")


def gradient(policy: Policy, rows: Sequence[MicroBatch]) -> Tensor:
    """Of the token-mean loss over ``rows``, flat."""
    update = plain_update(policy)
    update.add(rows)
    found = flat(policy.model) / update.stats().denominator
    policy.discard()
    return found


class Padded:
    """Plain transformers."""

    def __init__(self, checkpoint: Path, given: Sequence[TrainingSequence]) -> None:
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="sdpa")
        self._batches = [given[start : start + BATCH] for start in range(0, len(given), BATCH)]
        self._denominator = sum(len(sequence.completion_ids) for sequence in given)

    def gradient(self) -> Tensor:
        self._model.zero_grad(set_to_none=True)
        for batch in self._batches:
            length = max(map(len, batch))
            ids, mask = torch.zeros(len(batch), length, dtype=torch.long), torch.zeros(len(batch), length)
            advantages = torch.zeros(len(batch), length - PROMPT)
            for place, sequence in enumerate(batch):
                ids[place, : len(sequence)] = torch.tensor([*sequence.prompt_ids, *sequence.completion_ids])
                mask[place, : len(sequence)] = 1.0
                advantages[place, : len(sequence) - PROMPT] = torch.from_numpy(sequence.advantages)
            logits = self._model(input_ids=ids, attention_mask=mask, logits_to_keep=length - PROMPT + 1).logits[:, :-1]
            logprobs = torch.log_softmax(logits, -1).gather(-1, ids[:, PROMPT:, None])[..., 0]
            ratio = torch.exp(logprobs - logprobs.detach())
            (-(advantages * ratio).sum() / self._denominator).backward()
        return flat(self._model)


def flat(model: torch.nn.Module) -> Tensor:
    """All gradients in the order of parameters."""
    return torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters() if parameter.grad is not None])


if __name__ == "__main__":
    main()

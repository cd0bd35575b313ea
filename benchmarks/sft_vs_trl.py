"""Tokens per second and peak memory of SFT steps, ours against TRL's SFTTrainer.

    python benchmarks/sft_vs_trl.py [--lengths equal,uneven] [--steps 6] [--vocabulary 5376] [--json FILE]

The same tiny Qwen3, rows, optimizer, float32 and one thread; the loss is the mean over the answers' tokens. TRL runs in
the settings of ``benchmarks/sft/ways.py``: padded, padding-free (``free``) and with its packing (``packed``), the whole
batch in one pass or a quarter of it, under transformers' own attention and under ours (``segments``, which is what
``trainer: trl`` does). Ours runs with rows of ``--micro-batch-tokens``, of a quarter of the batch
(``ours-quarter``), and of the tokens of one of TRL's bins (``ours-bin``).

Every side is a process of its own; they take turns, step by step. The table has medians; a ratio is the median over the
turns, with its range. Tokens are those of the rows without padding, prompts included; "positions" are what the layers
computed. Memory is the resident peak of the steps above what the process held before the first one.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0].endswith("benchmarks"):  # math.py here is not Python's math
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import tempfile
from typing import Any

from benchmarks.against_trl import measure, report
from benchmarks.common import machine, machine_line, write_json
from benchmarks.sft.problem import Problem, prepare
from benchmarks.sft.ways import BORROWING, OTHER_EXAMPLES, WAYS

SIDES = ("ours", "ours-quarter", "ours-bin", *WAYS)


def main() -> None:
    options = parse()
    found: dict[str, Any] = {"machine": machine(), "options": {k: str(v) for k, v in vars(options).items()}}
    print(machine_line(found["machine"]))
    with tempfile.TemporaryDirectory(prefix="sft-vs-trl-") as folder:
        for lengths in options.lengths:
            problem = Problem(
                str(Path(folder) / lengths), lengths == "uneven", options.batch, options.hidden_size, options.layers,
                vocabulary=options.vocabulary,
            )  # fmt: skip
            prepare(problem)
            steps = measure(
                problem, options.sides, module_of, options.warm_up, options.steps, options.micro_batch_tokens,
                OTHER_EXAMPLES,
            )  # fmt: skip
            found[lengths] = report(f"{lengths} lengths", steps, BORROWING)
            if packed := [name for name in options.sides if name in OTHER_EXAMPLES]:
                print(f"{', '.join(packed)}: as many tokens a step, but of other rows, so the loss is not compared")
            if lent := [name for name in options.sides if name in BORROWING]:
                print(f"{', '.join(lent)}: with our attention, not by TRL and transformers alone")
    print(f"load at the end: {' '.join(map(str, machine()['load']))}")
    if options.json:
        write_json(options.json, found)


def module_of(side: str) -> str:
    return "benchmarks.sft.ours" if side.startswith("ours") else "benchmarks.sft.peer"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--lengths", type=names, default=["equal", "uneven"])
    parser.add_argument("--sides", type=names, default=list(SIDES))
    parser.add_argument("--warm-up", type=int, default=1, help="steps that are not counted")
    parser.add_argument("--steps", type=int, default=6, help="counted, of each side")
    parser.add_argument("--batch", type=int, default=32, help="rows per step")
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=0, help="words of the head; default: the tokenizer's 448")
    parser.add_argument("--micro-batch-tokens", type=int, default=4096, help="our tokens per forward pass")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()

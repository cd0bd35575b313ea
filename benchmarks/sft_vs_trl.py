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

from typing import Any

from benchmarks.offline.against_trl import compare, measure, parser, report
from benchmarks.sft.problem import Problem, prepare
from benchmarks.sft.ways import BORROWING, OTHER_EXAMPLES, WAYS

SIDES = ("ours", "ours-quarter", "ours-bin", *WAYS)


def main() -> None:
    asked = parser(__doc__, SIDES, 32, "rows")
    asked.add_argument("--layers", type=int, default=4)
    asked.add_argument("--vocabulary", type=int, default=0, help="words of the head; default: the tokenizer's 448")
    options = asked.parse_args()

    def of_lengths(lengths: str, folder: str) -> dict[str, Any]:
        problem = Problem(
            folder, lengths == "uneven", options.batch, options.hidden_size, options.layers,
            vocabulary=options.vocabulary,
        )  # fmt: skip
        prepare(problem)
        found = report(f"{lengths} lengths", measure(problem, options, "sft", OTHER_EXAMPLES), BORROWING)
        if packed := [name for name in options.sides if name in OTHER_EXAMPLES]:
            print(f"{', '.join(packed)}: as many tokens a step, but of other rows, so the loss is not compared")
        if lent := [name for name in options.sides if name in BORROWING]:
            print(f"{', '.join(lent)}: with our attention, not by TRL and transformers alone")
        return found

    compare(options, of_lengths)


if __name__ == "__main__":
    main()

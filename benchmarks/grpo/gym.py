"""Rows of reasoning-gym's ``basic_arithmetic`` for the learning proof: sums of two numbers, and a teacher who slips."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from cascade_rl.data.reasoning_gym import tasks

TASK = {
    "name": "basic_arithmetic",
    "operators": ["+"],
    "min_terms": 2,
    "max_terms": 2,
    "min_digits": 1,
    "max_digits": 2,
    "allow_negation": False,
    "allow_parentheses": False,
    "format_style": "simple",
}
SLIPS = 0.25
"""Share of lines that the teacher gets wrong: what is left to learn from the reward."""


def sums(*, split: str, rows: int = 2000, seed: int = 1, solved: bool = False) -> Iterator[dict[str, Any]]:
    """A data source of our recipes; ``solved`` rows have a worked ``response``."""
    rng = random.Random(seed)
    for row in tasks(split=split, rows=rows, seed=seed, **TASK):
        if solved:
            a, b = (int(part.strip(" =.")) for part in row["question"].removeprefix("Calculate ").split("+"))
            row["response"] = working(a, b, rng)
        yield row


def working(a: int, b: int, rng: random.Random) -> str:
    """Digit by digit from the right, ``8+7+0=15``; a slip makes a line one too high, and is carried on."""
    assert min(a, b) >= 0, "a negative number would have endlessly many digits here"
    lines, digits, carry = [], [], 0
    while a or b or not digits:
        total = a % 10 + b % 10 + carry + (rng.random() < SLIPS)
        lines.append(f"{a % 10}+{b % 10}+{carry}={total}")
        digits.append(str(total % 10))
        a, b, carry = a // 10, b // 10, total // 10
    if carry:
        digits.append(str(carry))
    return "\n".join([*lines, f"\\boxed{{{''.join(reversed(digits))}}}"])

"""Endless rows with exact answers, made by rule: what the quickstart learns from, and what tests use.

Held-out rows never overlap with training rows: a problem belongs to ``test`` when its hash says so, whatever the
seed, the number of rows or the order of drawing.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

HELD_OUT_SHARE = 0.2


def is_held_out(problem: str) -> bool:
    """True for the fifth of all problems that only evaluation may see."""
    digest = hashlib.sha256(problem.encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def _written_addition(a: int, b: int, rng: random.Random, slip_rate: float) -> tuple[str, int]:
    """The schoolbook method, one line per digit from the right, and the number it arrives at.

    With ``slip_rate`` a line's digit comes out one too high or too low, as from a careless teacher; the rest of
    the work goes on from there.
    """
    lines, digits, carry = [], [], 0
    width = max(len(str(a)), len(str(b)))
    for x, y in zip(str(a).zfill(width)[::-1], str(b).zfill(width)[::-1], strict=True):
        total = int(x) + int(y) + carry
        if rng.random() < slip_rate:
            total = max(0, total + rng.choice((-1, 1)))
        lines.append(f"{x}+{y}+{carry}={total}")
        digits.append(str(total % 10))
        carry = total // 10
    if carry:
        digits.append(str(carry))
    return "\n".join(lines), int("".join(reversed(digits)))


def addition(
    *,
    split: str,
    rows: int,
    seed: int = 0,
    digits: tuple[int, int] = (1, 2),
    slip_rate: float = 0.0,
    solved: bool = False,
) -> Iterator[dict]:
    """Additions of two numbers of ``digits[0]`` to ``digits[1]`` digits.

    Rows have ``problem`` and ``answer`` (always the true sum), and with ``solved`` a worked ``response`` by a
    teacher who makes a slip in a share ``slip_rate`` of its lines.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, not {split!r}")
    pair = isinstance(digits, list | tuple) and len(digits) == 2 and all(isinstance(n, int) for n in digits)
    if not pair or not 1 <= digits[0] <= digits[1]:
        raise ValueError(f"digits must be two whole numbers, the fewest and the most, not {digits!r}")
    rng = random.Random(f"addition:{seed}:{split}")
    low, high = digits
    seen: set[tuple[int, int]] = set()
    space = sum(9 * 10 ** (n - 1) for n in range(low, high + 1)) ** 2
    space = int(space * (HELD_OUT_SHARE if split == "test" else 1 - HELD_OUT_SHARE))
    if rows > space / 2:  # drawing without repeats slows down as a space fills up
        raise ValueError(f"{rows} rows asked of about {space} {split} problems; allow more digits")
    while len(seen) < rows:
        a, b = (rng.randrange(10 ** (n - 1), 10**n) for n in (rng.randint(low, high), rng.randint(low, high)))
        if (a, b) in seen or is_held_out(f"{a}+{b}") != (split == "test"):
            continue
        seen.add((a, b))
        row = {"problem": f"{a}+{b}", "answer": str(a + b)}
        if solved:
            work, result = _written_addition(a, b, rng, slip_rate)
            row["response"] = f"<think>\n{work}\n</think>\n\n\\boxed{{{result}}}"
        yield row

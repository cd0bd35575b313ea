"""What a reward may return, as a Score of plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cascade_rl.types import Score


def as_score(value: Any, use: str) -> Score:
    """``value`` as a Score with plain details, the same whether it comes from a worker process or not.

    Numbers of other libraries (``numpy.float32``, a tensor of one element) count as numbers. Raises TypeError or
    ValueError naming the reward for None, other types, NaN and infinities.
    """
    if not isinstance(value, Score):
        return Score(_finite(value, use))
    if not isinstance(value.details, Mapping):
        raise TypeError(f"reward {use} returned a Score whose details are {type(value.details).__name__}, not a dict")
    return Score(_finite(value.value, use), plain(value.details), value.error)


def _finite(value: Any, use: str) -> float:
    if not hasattr(value, "__float__"):
        forgotten = "; is it an async function called without await?" if hasattr(value, "__await__") else ""
        raise TypeError(f"reward {use} returned {type(value).__name__}; it must return a number or a Score{forgotten}")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise TypeError(f"reward {use} returned {type(value).__name__}, which is no single number: {error}") from None
    if not math.isfinite(number):
        raise ValueError(f"reward {use} returned {number}; scores must be finite")
    return number


def plain(value: Any) -> Any:
    """``value`` in JSON's types: sets in a fixed order, arrays as lists, anything unknown as its repr."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return float(value) if isinstance(value, float) else int(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return [plain(item) for item in sorted(value, key=repr)]  # their own order differs between processes
    if callable(getattr(value, "tolist", None)):
        return plain(value.tolist())
    return repr(value)

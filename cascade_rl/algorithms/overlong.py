"""What a rollout loses for being long, before it is so long that it is cut off."""

from __future__ import annotations


def soft_overlong_penalty(length: int, longest: int, buffer: int) -> float:
    """Soft overlong punishment, added to the reward (DAPO, arXiv 2503.14476, equation 13).

        0                                     length <= longest - buffer
        (longest - buffer - length) / buffer  up to longest: linear, from 0 to -1
        -1                                    longer

    length: response tokens of the rollout; longest: the most it may have (``max_new_tokens``); buffer: the tokens over
    which the penalty grows. Raises ValueError for a buffer that is not within 1 .. longest.
    """
    if not 1 <= buffer <= longest:
        raise ValueError(f"an overlong buffer of {buffer} tokens does not fit 1 to {longest}, the longest response")
    return -min(1.0, max(0, length - (longest - buffer)) / buffer)

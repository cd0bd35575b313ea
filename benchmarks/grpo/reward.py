"""The reward of the speed benchmarks: the share of vowels, after as long a wait as a file says.

Light on purpose: worker processes import it. The wait stands for a verifier that waits for something else (a sandbox, a
judge); it lies in a file so that one process can be measured with a free and with a slow reward, taking turns.
"""

from __future__ import annotations

import time
from pathlib import Path


def share_of_vowels(text: str) -> float:
    """Among all characters."""
    return sum(character in "aeiou" for character in text) / max(1, len(text))


def score(completion: str, *, wait_file: str) -> float:
    """As our stages call it."""
    seconds = float(Path(wait_file).read_text())
    if seconds:
        time.sleep(seconds)
    return share_of_vowels(completion)

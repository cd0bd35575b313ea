"""Prompts of several sources in fixed shares: how many of each a step asks, which ones, and in which places.

How many. A source with share w of a step of P prompts is due P * w of them, which is seldom whole: it gets that many
rounded down or up. Who is rounded up is the problem of proportionate fair scheduling, which PD2 solves (Srinivasan and
Anderson, "Optimal rate-based scheduling on multiprocessors", 2002): after any number of steps of one size, every
source has had less than one prompt more or less than its share of all drawn. Fractions are exact, so this holds after
a million steps as well.

Which. Every source has an epoch order of its own, so a small one is gone through more often than a large one.

Where. The places of a step are dealt so that its first and second half (``modes: half``: thinking or not) have as
many of each source, give or take one, and so have the ranks, where their number is a power of two.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cascade_rl.data.order import EpochFilter, PromptSampler
from cascade_rl.types import CascadeError


@dataclass(frozen=True)
class Share:
    """A source of a mixture: its name, its weight, and the places of its prompts among all prompts."""

    name: str
    weight: float
    places: Sequence[int]


@dataclass(frozen=True)
class _OfSource:
    """A filter of all prompts, for one source that knows its own by their numbers."""

    everyone: EpochFilter
    places: Sequence[int]

    def asks(self, index: int, epoch: int) -> bool:
        return self.everyone.asks(self.places[index], epoch)

    def readmit(self, indices: Iterable[int]) -> None:
        self.everyone.readmit(self.places[index] for index in indices)


class MixedSampler:
    """Same face as ``PromptSampler``, over sources with weights."""

    def __init__(
        self, fingerprint: str, shares: Sequence[Share], seed: int, leaving_out: EpochFilter | None = None
    ) -> None:
        """``leaving_out`` knows prompts by their places among all; each source has epochs of its own."""
        for share in shares:
            if not share.places:
                raise CascadeError(f"source {share.name} has a weight, but no prompt of it is left to draw")
        weights = [Fraction(str(share.weight)) for share in shares]  # 0.3 is 3/10, not the binary number next to it
        self._weights = [weight / sum(weights) for weight in weights]
        self._shares = shares
        self._fingerprint = fingerprint
        self._seed = seed
        self._samplers = [
            PromptSampler(
                fingerprint,
                len(share.places),
                _seed(seed, "source", number),
                None if leaving_out is None else _OfSource(leaving_out, share.places),
            )
            for number, share in enumerate(shares)
        ]
        self._steps = 0
        self._given = [0] * len(shares)

    def next(self, count: int) -> list[int]:
        """Places of the next ``count`` prompts among all prompts."""
        counts = quotas(count, self._weights, self._given)
        drawn = [
            [share.places[i] for i in sampler.next(n)]
            for share, sampler, n in zip(self._shares, self._samplers, counts, strict=True)
        ]
        order = deal(counts, random.Random(_seed(self._seed, "step", self._steps)))
        waiting = [iter(places) for places in drawn]
        self._steps += 1
        self._given = [before + n for before, n in zip(self._given, counts, strict=True)]
        return [next(waiting[source]) for source in order]

    def state(self) -> dict[str, Any]:
        """Where the drawing stands, and in what."""
        return {
            "steps": self._steps,
            "given": list(self._given),
            "sources": [sampler.state() for sampler in self._samplers],
            "weights": [str(weight) for weight in self._weights],
            "seed": self._seed,
            "fingerprint": self._fingerprint,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``. Raises CascadeError when it was taken over other data or other weights."""
        mine = self.state()
        for key in ("fingerprint", "weights", "seed"):
            if state.get(key) != mine[key]:
                raise CascadeError(
                    f"the saved position belongs to other data: {key} was {state.get(key)!r}, is {mine[key]!r}. The "
                    "data changed since this stage was interrupted; put it back, or delete the stage's state folder."
                )
        for sampler, saved in zip(self._samplers, state["sources"], strict=True):
            sampler.restore(saved)
        self._steps, self._given = state["steps"], list(state["given"])


Sampler = PromptSampler | MixedSampler
"""What an RL stage draws its prompts with."""


def quotas(count: int, weights: Sequence[Fraction], given: Sequence[int]) -> list[int]:
    """How many of the next ``count`` prompts each source gives. ``weights`` sum to one; ``given``: how many it gave.

    Each gets its part of ``count`` rounded down or up. As long as ``count`` stays the same from call to call, ``given``
    keeps within one of its part of the total; where it changes, those furthest behind are still rounded up first.
    """
    drawn = sum(given)
    due = [count * weight for weight in weights]
    counts = [math.floor(part) for part in due]
    rests = [part - whole for part, whole in zip(due, counts, strict=True)]
    behind = [drawn * weight - n for weight, n in zip(weights, given, strict=True)]
    waiting = [i for i, rest in enumerate(rests) if rest]
    # Rounding up what is ahead already would take it a whole prompt too far: those wait, whatever their deadline.
    urgent = sorted(waiting, key=lambda i: (behind[i] + rests[i] <= 0, *_urgency(behind[i], rests[i]), i))
    for i in urgent[: count - sum(counts)]:
        counts[i] += 1
    return counts


def _urgency(behind: Fraction, rest: Fraction) -> tuple[int, int, int]:
    """PD2's priority of a source that gains ``rest`` (between 0 and 1) a step on what it got; the lowest goes first.

    ``deadline``: the step by whose end it must have been rounded up, or it is a whole prompt behind. A tie goes to the
    one whose next turn could begin before this deadline has passed, then to the one whose row of tight turns is longer.
    """
    exact = (1 - behind) / rest
    deadline = math.ceil(exact)
    if exact.denominator == 1:
        return deadline, 1, 0
    if 2 * rest < 1:
        return deadline, 0, 0
    slack = 1 - rest
    group_deadline = math.ceil((math.ceil(deadline * slack - behind) + behind) / slack)
    return deadline, 0, -group_deadline


def deal(counts: Sequence[int], shuffler: random.Random) -> list[int]:
    """For each place of a step, the source that fills it: ``counts[source]`` places each.

    Halves of the step, then the places of even and odd number within them, and so on, get the same number of each
    source, give or take one; what cannot be halved further is shuffled.
    """
    order = [0] * sum(counts)
    for place, source in _dealt(list(range(len(order))), list(counts), shuffler, by_blocks=True):
        order[place] = source
    return order


def _dealt(
    places: list[int], counts: list[int], shuffler: random.Random, by_blocks: bool = False
) -> Iterator[tuple[int, int]]:
    half, odd = divmod(len(places), 2)
    if odd or not half:
        sources = [source for source, n in enumerate(counts) for _ in range(n)]
        shuffler.shuffle(sources)
        yield from zip(places, sources, strict=True)
        return
    # Sources of odd number give one more to either half: an even number of them, since the total is even.
    uneven = [source for source, n in enumerate(counts) if n % 2]
    shuffler.shuffle(uneven)
    more = set(uneven[: len(uneven) // 2])
    first = [n // 2 + (source in more) for source, n in enumerate(counts)]
    second = [n - m for n, m in zip(counts, first, strict=True)]
    parts = (places[:half], places[half:]) if by_blocks else (places[::2], places[1::2])
    yield from _dealt(parts[0], first, shuffler)
    yield from _dealt(parts[1], second, shuffler)


def _seed(*parts: object) -> int:
    key = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(key[:8], "big")

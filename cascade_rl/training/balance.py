"""Which rank trains on which sequences, in which rows: equal work, equally many rows, whoever generated what.

``plan`` is pure: lengths in, rows of every rank out. ``balanced_rows`` carries it out: each rank hands in what it
generated or read and gets its share. Sequences are put into one order by their content first, so the plan does not
depend on who handed in what, nor does the update beyond float rounding.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from cascade_rl.training.packing import MicroBatch, TrainingSequence, assign_rows, pack_row, training_sequence
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.shared_prompts import bundles, shared_row, shared_tokens
from cascade_rl.training.ulysses import cut

Rows = list[list[int]]
"""Rows of one rank, each the indices of its sequences; an empty one stands for a row of nothing to learn."""


@dataclass(frozen=True)
class TokenCost:
    """Work of a sequence of L tokens: linear * L + quadratic * L^2, in units that only compare."""

    linear: float
    quadratic: float

    def __call__(self, length: int) -> float:
        return self.linear * length + self.quadratic * length * length

    @classmethod
    def of(cls, model: Any) -> TokenCost:
        """Of a dense transformer: a token meets every weight of the matrices once, and in each layer and head the
        tokens before it, half of L on average: 2 N L + 2 layers heads head_dim L^2 FLOP of a forward pass."""
        config = model.config.get_text_config()
        matrices = sum(p.numel() for p in model.parameters() if p.dim() > 1)
        if not config.tie_word_embeddings or model.get_output_embeddings() is None:
            matrices -= model.get_input_embeddings().weight.numel()  # is looked up, not multiplied
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(float(matrices), float(config.num_hidden_layers * config.num_attention_heads * width))


def assign(costs: Sequence[float], parts: int) -> list[list[int]]:
    """Sorted greedy: the costliest first, each to the part that has least so far. Indices ascend within a part.

    Ties go by index and part, so equal input gives equal parts. Measured no worse than Karmarkar-Karp on lengths as
    reasoning has them (shared notes "training", section 3.4).
    """
    shares: list[list[int]] = [[] for _ in range(parts)]
    loads = [(0.0, part) for part in range(parts)]
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, part = loads[0]
        shares[part].append(index)
        heapq.heapreplace(loads, (load + costs[index], part))
    return [sorted(share) for share in shares]


def plan(
    lengths: Sequence[int],
    parts: int,
    budget: int,
    cost: Callable[[int], float],
    costs: Sequence[float] | None = None,
) -> list[Rows]:
    """Rows of every part: work spread evenly, rows of at most ``budget`` tokens where one sequence allows, and as many
    of them on each part. ``costs``: of each where it does not follow from its length.

    Parts with fewer rows split their costliest; one with too few sequences gets empty rows. Rows go by falling cost,
    since ranks that wait for each other at every row had better have rows alike at the same time.
    """
    costs = costs or [cost(length) for length in lengths]
    shares = assign(costs, parts)
    packed = [[[share[i] for i in row] for row in assign_rows([lengths[i] for i in share], budget)] for share in shares]
    count = max(len(rows) for rows in packed)
    return [
        _in_order(_even(share, count, lengths, costs, budget) or _split(rows, count, costs), costs)
        for share, rows in zip(shares, packed, strict=True)
    ]


def _even(share: Sequence[int], count: int, lengths: Sequence[int], costs: Sequence[float], budget: int) -> Rows | None:
    """``share`` in ``count`` rows of about equal cost: each sequence, the costliest first, goes to the row with least
    work that has room. None where that leads to a row over ``budget`` (packing it tightly may not), or to none at all.
    """
    rows: Rows = [[] for _ in range(count)]
    loads, tokens = [0.0] * count, [0] * count
    for index in sorted(share, key=lambda i: (-costs[i], i)):
        fitting = [r for r in range(count) if not rows[r] or tokens[r] + lengths[index] <= budget]
        if not fitting:
            return None
        row = min(fitting, key=lambda r: (loads[r], r))
        rows[row].append(index)
        loads[row] += costs[index]
        tokens[row] += lengths[index]
    return [sorted(row) for row in rows]


def _split(rows: Rows, count: int, costs: Sequence[float]) -> Rows:
    """``count`` rows: the costliest of several sequences is halved again and again, then empty ones are added."""
    rows = list(rows)
    while len(rows) < count:
        divisible = [row for row in rows if len(row) > 1]
        if not divisible:
            rows.append([])
            continue
        row = max(divisible, key=lambda row: (sum(costs[i] for i in row), row))
        rows.remove(row)
        rows += [[row[i] for i in half] for half in assign([costs[i] for i in row], 2)]
    return rows


def _in_order(rows: Rows, costs: Sequence[float]) -> Rows:
    return sorted(rows, key=lambda row: (-sum(costs[i] for i in row), row))


def imbalance(rows_of_parts: Sequence[Rows], lengths: Sequence[int], cost: Callable[[int], float]) -> float:
    """Work of the busiest part over the mean, less 1: the share of time that the others wait at the step's end."""
    loads = [sum(cost(lengths[i]) for row in rows for i in row) for rows in rows_of_parts]
    return max(loads) * len(loads) / sum(loads) - 1.0 if sum(loads) else 0.0


def imbalance_of_rows(rows_of_parts: Sequence[Rows], lengths: Sequence[int], cost: Callable[[int], float]) -> float:
    """The same where ranks wait for each other at every row, as under ZeRO-3 and FSDP2."""
    loads = [[sum(cost(lengths[i]) for i in row) for row in rows] for rows in rows_of_parts]
    mean = sum(map(sum, loads)) / len(loads)
    return sum(max(at_once) for at_once in zip(*loads, strict=True)) / mean - 1.0 if mean else 0.0


def balanced_rows(
    ranks: Ranks,
    sequences: Sequence[TrainingSequence],
    cost: Callable[[int], float],
    budget: int,
    *,
    unit: int = 1,
    together: int = 1,
    share_prompts: bool = False,
    make: Callable[[Sequence[TrainingSequence]], MicroBatch] | None = None,
) -> list[MicroBatch]:
    """This rank's rows out of what all ranks hand in. A collective call; equally many rows on every rank.

    ``unit``: so many consecutive sequences stay together, in their order, in one row (2 for pairs).
    ``together``: so many neighbouring ranks share each row's tokens, so that it may have so many times ``budget``.
    ``share_prompts``: neighbours with one prompt have it in common (``shared_prompts.shared_row``).
    ``make``: what makes a row of sequences. Default: ``shared_row`` or ``pack_row``.
    """
    units = [sequences[start : start + unit] for start in range(0, len(sequences), unit)]
    known = ranks.gather(
        [(_key(u[0].prompt_ids), _unit_key(u), [(len(s.prompt_ids), len(s)) for s in u]) for u in units]
    )
    everything = sorted(
        (prompt, key, rank, number, sizes)
        for rank, those in enumerate(known)
        for number, (prompt, key, sizes) in enumerate(those)
    )
    if not everything:
        return []
    parts, budget = ranks.world_size // together, budget * together
    planned = _planned(everything, parts, budget, cost, share_prompts)
    home = {index: part for part, rows in enumerate(planned) for row in rows for index in row}
    outgoing: list[list[tuple[int, list[TrainingSequence]]]] = [[] for _ in range(ranks.world_size)]
    for index, (_, _, rank, number, _) in enumerate(everything):
        if rank == ranks.rank:
            for other in range(home[index] * together, (home[index] + 1) * together):
                outgoing[other].append((index, [_compact(s) for s in units[number]]))
    received = {index: [_whole(s) for s in those] for part in _exchange(ranks, outgoing) for index, those in part}
    make = make or (shared_row if share_prompts else pack_row)
    rows = [make([s for index in row for s in received[index]] or [NOTHING]) for row in planned[ranks.rank // together]]
    return rows if together == 1 else [cut(row, ranks.rank % together, together) for row in rows]


def _planned(
    everything: Sequence[tuple[bytes, bytes, int, int, list[tuple[int, int]]]],
    parts: int,
    budget: int,
    cost: Callable[[int], float],
    share_prompts: bool,
) -> list[Rows]:
    """``plan`` of all units; where prompts are shared, single sequences with one prompt stay together if they can."""
    prompts, _, _, _, sizes = (list(column) for column in zip(*everything, strict=True))
    before = [of[0][0] for of in sizes]
    bundled = [[index] for index in range(len(sizes))]
    if share_prompts and all(len(of) == 1 for of in sizes):
        bundled = bundles(prompts, before, [length for ((_, length),) in sizes], parts, budget)
    lengths = [[length for index in bundle for _, length in sizes[index]] for bundle in bundled]
    tokens = [
        shared_tokens(before[bundle[0]], those) if share_prompts else sum(those)
        for bundle, those in zip(bundled, lengths, strict=True)
    ]
    # Attention is that of whole sequences, shared or not: what is saved is linear in the tokens left out.
    costs = [
        sum(cost(length) for length in those) - (sum(those) - count) * cost(1)
        for those, count in zip(lengths, tokens, strict=True)
    ]
    planned = plan(tokens, parts, budget, cost, costs)
    return [[[index for bundle in row for index in bundled[bundle]] for row in rows] for rows in planned]


NOTHING = training_sequence([0], [], [], 0.0)
"""One token and nothing to learn from it: a row that keeps collective passes in step, with a gradient of zero."""


_KEY_FIELDS = [f.name for f in dataclasses.fields(TrainingSequence) if f.name != "temperature"]
"""The fields that sequences are ordered by. The temperature is the same for all sequences of a step."""


def _key(what: TrainingSequence | numpy.ndarray) -> bytes:
    """Of its content, so that an order by it is the same wherever it was made."""
    digest = hashlib.blake2b(digest_size=16)
    values = [what] if isinstance(what, numpy.ndarray) else [getattr(what, name) for name in _KEY_FIELDS]
    if isinstance(what, TrainingSequence) and what.kept is None:
        values = values[:-1]  # the order of sequences, and so every bit, stays what it was before there was this field
    for value in values:
        digest.update(value.tobytes() if isinstance(value, numpy.ndarray) else repr(value).encode())
        digest.update(b"|")
    return digest.digest()


def _unit_key(unit: Sequence[TrainingSequence]) -> bytes:
    return _key(unit[0]) if len(unit) == 1 else b"".join(_key(sequence) for sequence in unit)


def _compact(sequence: TrainingSequence) -> TrainingSequence:
    """For the way: one advantage instead of n equal ones."""
    advantages = sequence.advantages
    if len(advantages) > 1 and bool((advantages == advantages[0]).all()):
        return dataclasses.replace(sequence, advantages=advantages[:1])
    return sequence


def _whole(sequence: TrainingSequence) -> TrainingSequence:
    n = len(sequence.completion_ids)
    if len(sequence.advantages) == n:
        return sequence
    return dataclasses.replace(sequence, advantages=numpy.repeat(sequence.advantages, n))


def _exchange(ranks: Ranks, outgoing: Sequence[Any]) -> list[Any]:
    if ranks.world_size == 1:
        return list(outgoing)
    return [pickle.loads(part) for part in ranks.exchange([pickle.dumps(part, protocol=5) for part in outgoing])]

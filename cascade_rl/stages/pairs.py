"""Preference pairs as token ids."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow

from cascade_rl.data.exclusion import load_stage_rows
from cascade_rl.data.preferences import Pair, read_pairs
from cascade_rl.data.refusals import Refusals
from cascade_rl.recipe import RewardModelStage
from cascade_rl.rewarding.reward_model_ids import judged_ids
from cascade_rl.stages.context import Context
from cascade_rl.types import CascadeError

_IDS = pyarrow.list_(pyarrow.int64())
SCHEMA = pyarrow.schema(
    [("chosen_ids", _IDS), ("rejected_ids", _IDS), ("category", pyarrow.string()), ("key", pyarrow.string())]
)
"""Of pairs as ``training_pairs`` gives them."""


@dataclass(frozen=True)
class TokenPair:
    """A pair as the model reads it."""

    chosen_ids: list[int]
    rejected_ids: list[int]
    category: str

    @property
    def is_equal(self) -> bool:
        """Whether both sides are the same tokens, so that nothing can be preferred."""
        return self.chosen_ids == self.rejected_ids

    @property
    def key(self) -> str:
        """The same for equal pairs, wherever they come from."""
        return hashlib.sha256(repr((self.chosen_ids, self.rejected_ids)).encode()).hexdigest()[:16]


class StoredPairs:
    """The pairs in a table of ``SCHEMA``, by row number."""

    def __init__(self, table: pyarrow.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, row: int) -> TokenPair:
        chosen, rejected = (
            self._table[side][row].values.to_numpy().tolist() for side in ("chosen_ids", "rejected_ids")
        )
        return TokenPair(chosen, rejected, self._table["category"][row].as_py())

    @property
    def keys(self) -> list[str]:
        """Of each row ``TokenPair.key``."""
        return self._table["key"].to_pylist()


def training_pairs(context: Context, config: RewardModelStage, tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Pairs within ``max_length`` as rows to store; the log says how many were left out, and why.

    Raises CascadeError when no row is a pair (see ``cascade_rl.data.preferences``).
    """
    counts: Counter[str] = Counter()
    refusals = Refusals()
    for part in load_stage_rows(config, context.job.recipe_path, context.job.stages_data, context.say):
        counts["rows"] += len(part.rows)
        for pair in read_pairs(part.rows, part.source, part.numbers, refusals):
            tokens = None if pair is None else usable(pair, tokenizer, refusals, counts)
            if tokens is None:
                counts["ties"] += pair is None
            elif max(len(tokens.chosen_ids), len(tokens.rejected_ids)) > config.max_length:
                counts["long"] += 1
            else:
                counts["kept"] += 1
                yield {**vars(tokens), "key": tokens.key}
    if counts["ties"]:
        context.say(f"{counts['ties']} of {counts['rows']} rows have no preference (ties) and were dropped")
    if counts["equal"]:
        context.say(
            f"{counts['equal']} of {counts['rows']} rows have equal answers on both sides, as the reward model reads "
            "them, and were dropped"
        )
    if counts["long"]:
        pairs = counts["kept"] + counts["long"]
        context.say(f"{counts['long']} of {pairs} pairs are longer than {config.max_length} tokens and were dropped")
    refusals.report(context.say, counts["rows"])
    refusals.refuse_all(counts["rows"])


def usable(pair: Pair, tokenizer: Any, refusals: Refusals, counts: Counter[str]) -> TokenPair | None:
    """The pair as token ids; None where its sides are equal, or one of them is refused. It is counted then."""
    if pair.chosen == pair.rejected:
        counts["equal"] += 1
        return None
    try:
        if fault := pair.fault:
            raise CascadeError(fault)
        tokens = _tokens(pair, tokenizer)
    except CascadeError as fault:
        refusals.add(CascadeError(f"row {pair.id}: {fault}"))
        return None
    if tokens.is_equal:
        counts["equal"] += 1
        return None
    return tokens


def _tokens(pair: Pair, tokenizer: Any) -> TokenPair:
    chosen, rejected = (judged_ids(tokenizer, pair.conversation(side)) for side in (pair.chosen, pair.rejected))
    return TokenPair(chosen, rejected, pair.category)

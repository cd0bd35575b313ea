"""Preference pairs as token ids, and what a reward model makes of them."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cascade_rl.data.exclusion import load_stage_rows
from cascade_rl.data.order import epoch_order
from cascade_rl.data.preferences import Pair, read_pairs
from cascade_rl.data.refusals import Refusals
from cascade_rl.data.sources import load_rows
from cascade_rl.evals.pairs import JudgedPair, aggregate_pairs
from cascade_rl.evals.registry import HELD_OUT, pairs_identity
from cascade_rl.recipe import RewardModelStage
from cascade_rl.recipe.measuring import PairBenchmark
from cascade_rl.rewarding.judged import judged_ids
from cascade_rl.stages.context import Context
from cascade_rl.store.files import write_json
from cascade_rl.types import CascadeError, Preempted

_DRAW = -1
"""Which of the seed's orders held-out pairs are drawn from; those of the epochs count from 0."""


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


def training_pairs(context: Context, config: RewardModelStage, tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Pairs within ``max_length`` as rows to store; the log says how many were left out, and why.

    Raises CascadeError when no row is a pair (see ``cascade_rl.data.preferences``).
    """
    counts: Counter[str] = Counter()
    refusals = Refusals()
    for part in load_stage_rows(config, context.job.recipe_path, context.job.stages_data, context.say):
        counts["rows"] += len(part.rows)
        for pair in read_pairs(part.rows, part.source, part.numbers, refusals):
            tokens = None if pair is None else _usable(pair, tokenizer, refusals, counts)
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


def _usable(pair: Pair, tokenizer: Any, refusals: Refusals, counts: Counter[str]) -> TokenPair | None:
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


def split(keys: Sequence[str], held_out: int, seed: int) -> tuple[list[int], list[int]]:
    """Indices of rows to train on, and of ``held_out`` different pairs of which no copy is trained on.

    Drawn by the seed. Raises CascadeError where that leaves nothing to train on.
    """
    if not held_out:
        return list(range(len(keys))), []
    first: dict[str, int] = {}
    for index, key in enumerate(keys):
        first.setdefault(key, index)
    if held_out >= len(first):
        raise CascadeError(
            f"held_out is {held_out}, but there are {len(first)} different pairs: nothing is left to train"
        )
    different = list(first.values())
    drawn = sorted(different[each] for each in epoch_order(len(different), seed, _DRAW)[:held_out])
    apart = {keys[index] for index in drawn}
    return [index for index, key in enumerate(keys) if key not in apart], drawn


def scores(context: Context, model: Any, sequences: Sequence[Sequence[int]], batch_size: int) -> list[float]:
    """The model's score of each of ``sequences``, in float32; this rank alone. Raises Preempted when asked to stop.

    Sequences of like length go together: with padding to the right and causal attention, company changes nothing but
    the time it takes.
    """
    precision = (
        torch.autocast(context.ranks.device.type, torch.bfloat16)
        if context.dtype == "bfloat16" and not context.on_cpu
        else contextlib.nullcontext()
    )
    pad = model.config.get_text_config().pad_token_id  # by which transformers finds where a row ends
    found = [0.0] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    was_training = model.training
    model.eval()
    for start in range(0, len(order), batch_size):
        if context.stop.is_set:
            raise Preempted
        batch = order[start : start + batch_size]
        longest = max(len(sequences[index]) for index in batch)
        ids = torch.full((len(batch), longest), pad)
        mask = torch.zeros_like(ids)
        for row, index in enumerate(batch):
            length = len(sequences[index])
            ids[row, :length] = torch.tensor(sequences[index])
            mask[row, :length] = 1
        device = context.ranks.device
        with torch.no_grad(), precision:
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
        for index, value in zip(batch, logits.float().squeeze(-1).tolist(), strict=True):
            found[index] = value
    model.train(was_training)
    return found


def judge(context: Context, model: Any, pairs: Sequence[TokenPair], batch_size: int) -> list[JudgedPair]:
    """Both scores of every pair, shared out over the ranks. A collective call; ``batch_size`` counts sequences."""
    ranks = context.ranks
    mine = pairs[ranks.rank :: ranks.world_size]
    values = scores(context, model, [ids for pair in mine for ids in (pair.chosen_ids, pair.rejected_ids)], batch_size)
    judged = [
        JudgedPair(pair.category, *both)
        for pair, both in zip(mine, zip(values[::2], values[1::2], strict=True), strict=True)
    ]
    return [pair for share in ranks.gather(judged) for pair in share]


def measure_held_out(context: Context, model: Any, pairs: Sequence[TokenPair], batch_size: int) -> None:
    """Measure what was kept apart, and write it to ``evals``. A collective call."""
    _publish(context, aggregate_pairs(HELD_OUT, judge(context, model, pairs, batch_size)))


def measure(context: Context, model: Any, tokenizer: Any, benchmark: PairBenchmark, batch_size: int) -> None:
    """Measure one benchmark, and write it to ``evals``. A collective call.

    Raises CascadeError if its rows have changed while they were read.
    """
    identity = pairs_identity(benchmark, context.job.recipe_path)
    limit = model.config.get_text_config().max_position_embeddings
    pairs = list(_measurable(context, benchmark, tokenizer, limit))
    if context.ranks.any(pairs_identity(benchmark, context.job.recipe_path) != identity):
        raise CascadeError(
            f"{benchmark.name}: its rows were changed while they were read; start the same command again"
        )
    judged = judge(context, model, pairs, batch_size)
    result = aggregate_pairs(benchmark.name, judged, benchmark.sections, benchmark.weights)
    _publish(context, {**result, "identity": identity})


def _measurable(context: Context, benchmark: PairBenchmark, tokenizer: Any, limit: int) -> Iterable[TokenPair]:
    """Pairs that can be told apart and that fit the model; the log counts the others."""
    rows, long = 0, 0
    refusals, counts = Refusals(), Counter[str]()
    for source in benchmark.data:
        loaded = load_rows(source, context.job.recipe_path)
        rows += len(loaded)
        for pair in read_pairs(loaded, source, refusals=refusals):
            if pair is None or pair.fault:
                counts["useless"] += 1
                continue
            tokens = _usable(pair, tokenizer, refusals, counts)
            if tokens is None:
                continue
            if max(len(tokens.chosen_ids), len(tokens.rejected_ids)) > limit:
                long += 1
                continue
            yield tokens
    refusals.report(lambda text: context.say(f"{benchmark.name}: {text}"), rows)
    refusals.refuse_all(rows)
    useless = counts["useless"] + counts["equal"]
    if useless or long:
        context.say(
            f"{benchmark.name}: of {rows} rows, {useless} have no better answer and {long} are longer than the model's "
            f"{limit} positions; they are left out"
        )


def _publish(context: Context, result: dict[str, Any]) -> None:
    if context.ranks.is_main:
        folder = context.job.place.evals
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{result['benchmark']}.json", result)
    low, high = result["ci95"]
    context.say(
        f"{result['benchmark']}: {100 * result['value']:.1f}% [{100 * low:.1f}, {100 * high:.1f}] of {result['rows']} "
        f"pairs told right, mean margin {result['margin']:.2f}"
    )
    context.ranks.barrier()

"""What a reward model makes of pairs: both scores of each, on packed rows shared out over ranks, and the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from torch import Tensor

from cascade_rl.data.preferences import read_pairs
from cascade_rl.data.refusals import Refusals
from cascade_rl.data.sources import load_rows
from cascade_rl.evals.pairs import JudgedPair, aggregate_pairs
from cascade_rl.evals.registry import HELD_OUT, pairs_identity
from cascade_rl.recipe.measuring import PairBenchmark
from cascade_rl.stages.context import Context
from cascade_rl.stages.pairs import TokenPair, usable
from cascade_rl.store.files import write_json
from cascade_rl.training.packing import MicroBatch, TrainingSequence
from cascade_rl.training.scoring import pair_sequences
from cascade_rl.types import CascadeError, Preempted


class Scorer(Protocol):
    """A reward model that scores packed rows of pairs: one in training, spread over ranks, or a whole one."""

    model: Any
    """The transformers classifier."""

    @property
    def reports(self) -> bool:
        """Whether this rank's scores are to be counted; False where another rank has the same rows."""
        ...

    def rows(self, sequences: Sequence[TrainingSequence], budget: int) -> list[MicroBatch]:
        """This rank's rows out of the pairs that all ranks hand in, equally many on every rank."""
        ...

    def score(self, batch: MicroBatch) -> Tensor:
        """Scores [S] of a row's sequences."""
        ...


def judge(context: Context, model: Scorer, pairs: Sequence[TokenPair], budget: int) -> list[JudgedPair]:
    """Both scores of every pair, in the order of ``pairs``, which are the same on every rank. A collective call.

    ``budget``: tokens of a packed row. Raises Preempted, on all ranks, once one was asked to stop.
    """
    ranks = context.ranks
    sequences = [
        side
        for number in range(ranks.rank, len(pairs), ranks.world_size)
        for side in pair_sequences(pairs[number].chosen_ids, pairs[number].rejected_ids, label=str(number))
    ]
    found: dict[int, list[float]] = {}
    for row in model.rows(sequences, budget):
        if ranks.any(context.stop.is_set):
            raise Preempted
        scores = model.score(row)
        if model.reports:
            found |= zip(map(int, row.labels[::2]), scores.double().view(-1, 2).tolist(), strict=True)
    everywhere = {number: scores for share in ranks.gather(found) for number, scores in share.items()}
    return [JudgedPair(pair.category, *everywhere[number]) for number, pair in enumerate(pairs)]


def write_held_out(context: Context, judged: Sequence[JudgedPair]) -> None:
    """Write what was measured on the held-out pairs to ``evals``. A collective call."""
    _publish(context, aggregate_pairs(HELD_OUT, judged))


def measure(context: Context, model: Scorer, tokenizer: Any, benchmark: PairBenchmark, budget: int) -> None:
    """Measure one benchmark, and write it to ``evals``. A collective call.

    Raises CascadeError if its rows have changed while they were read.
    """
    identity = pairs_identity(benchmark, context.job.recipe_path)
    limit = model.model.config.get_text_config().max_position_embeddings
    pairs = list(_measurable(context, benchmark, tokenizer, limit))
    if context.ranks.any(pairs_identity(benchmark, context.job.recipe_path) != identity):
        raise CascadeError(
            f"{benchmark.name}: its rows were changed while they were read; start the same command again"
        )
    judged = judge(context, model, pairs, budget)
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
            tokens = usable(pair, tokenizer, refusals, counts)
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
        folder = context.job.stage_folder.evals
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{result['benchmark']}.json", result)
    low, high = result["ci95"]
    context.say(
        f"{result['benchmark']}: {100 * result['value']:.1f}% [{100 * low:.1f}, {100 * high:.1f}] of {result['rows']} "
        f"pairs told right, mean margin {result['margin']:.2f}"
    )
    context.ranks.barrier()

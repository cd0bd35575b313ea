"""Rows in which the rollouts of one prompt have it in common: its tokens go through the layers once, not G times.

    [ prompt | rollout 1 | rollout 2 | ... | next prompt | ... ]      positions go on from the prompt

Attention is that of (prompt, rollout) pairs: a rollout sees the prompt and itself, none of its siblings; the rollout
that lies next to the prompt is one segment with it, the others name it as their prefix. Everything but attention looks
at one token at a time. So log-probs and gradients are those of whole sequences, up to float rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

import numpy
import torch

from cascade_rl.training.packing import MicroBatch, TrainingSequence, pack_row

Item = TypeVar("Item")
WORTH = 0.1
"""Sharing pays from this share of a group's tokens on: attention has to copy prompts to where rollouts are."""
PIECES_PER_PART = 16
"""Where several parts are to have equal work, no bundle is more than this share of one part's."""


def bundles(
    prompts: Sequence[bytes], prompt_lengths: Sequence[int], lengths: Sequence[int], parts: int, budget: int
) -> list[list[int]]:
    """Indices of neighbours with one prompt, together while they fit into ``budget`` tokens and ``parts`` stay even.

    ``prompts``: what tells prompts apart; ``lengths``: tokens of each sequence, its prompt's included.
    """
    largest = budget if parts == 1 else min(budget, sum(lengths) // (PIECES_PER_PART * parts))
    made: list[list[int]] = []
    tokens = 0
    for index, length in enumerate(lengths):
        more = length - prompt_lengths[index]
        if made and prompts[made[-1][0]] == prompts[index] and tokens + more <= largest:
            made[-1].append(index)
            tokens += more
        else:
            made.append([index])
            tokens = length
    return [
        part
        for bundle in made
        for part in parted(bundle, prompt_lengths[bundle[0]], sum(lengths[index] for index in bundle))
    ]


def parted(group: Sequence[Item], prompt_length: int, tokens: int) -> list[list[Item]]:
    """``group`` of one prompt together, or each by itself where too few of its ``tokens`` would be saved."""
    if prompt_length * (len(group) - 1) >= WORTH * tokens:
        return [list(group)]
    return [[item] for item in group]


def shared_tokens(prompt_length: int, lengths: Sequence[int]) -> int:
    """Tokens that a group of one prompt takes in a ``shared_row``; ``lengths`` include the prompt."""
    (first, *others) = parted(range(len(lengths)), prompt_length, sum(lengths))
    return sum(lengths) if others else sum(lengths) - prompt_length * (len(first) - 1)


def shared_row(sequences: Sequence[TrainingSequence]) -> MicroBatch:
    """``pack_row``, but neighbours with one prompt share its tokens."""
    siblings = [list(group) for _, group in itertools.groupby(sequences, key=lambda s: s.prompt_ids.tobytes())]
    groups = [part for those in siblings for part in parted(those, len(those[0].prompt_ids), sum(map(len, those)))]
    if len(groups) == len(sequences):
        return pack_row(sequences)
    layout = _Layout()
    for group in groups:
        layout.add(group)
    row = pack_row(sequences)
    return MicroBatch(
        input_ids=torch.from_numpy(numpy.concatenate(layout.tokens).astype(numpy.int64))[None],
        position_ids=torch.from_numpy(numpy.concatenate(layout.positions))[None],
        cu_seq_lens=torch.tensor(layout.borders, dtype=torch.int32),
        max_length=row.max_length,
        predictors=torch.from_numpy(numpy.concatenate(layout.predictors)),
        targets=row.targets,
        advantages=row.advantages,
        engine_logprobs=row.engine_logprobs,
        weights=row.weights,
        reference_logprobs=row.reference_logprobs,
        kept=row.kept,
        labels=row.labels,
        prefixes=tuple(layout.prefixes),
        trained=tuple(len(s.completion_ids) for s in sequences),
        temperature=row.temperature,
    )


class _Layout:
    """The tokens of a row, as they are laid down."""

    def __init__(self) -> None:
        self.tokens: list[numpy.ndarray] = []
        self.positions: list[numpy.ndarray] = []
        self.predictors: list[numpy.ndarray] = []
        self.borders, self.prefixes = [0], list[tuple[int, int]]()

    def add(self, group: Sequence[TrainingSequence]) -> None:
        """A prompt and its rollouts. One without tokens adds none, but where it is alone its prompt stays."""
        prompt = group[0].prompt_ids
        start, end = self.borders[-1], self.borders[-1] + len(prompt)
        at, prefix = start, (start, start)  # the first segment is the prompt with the first rollout
        self._lay(prompt, 0)
        for place, sequence in enumerate(group):
            n, begin = len(sequence.completion_ids), end if place == 0 else at
            self._lay(sequence.completion_ids, len(prompt))
            self.predictors.append(numpy.r_[end - 1 : end, begin : begin + n - 1][:n].astype(numpy.int64))
            at = begin + n
            if at > self.borders[-1]:
                self.borders.append(at)
                self.prefixes.append(prefix)
            prefix = (start, end)

    def _lay(self, ids: numpy.ndarray, position: int) -> None:
        self.tokens.append(ids)
        self.positions.append(numpy.arange(position, position + len(ids)))

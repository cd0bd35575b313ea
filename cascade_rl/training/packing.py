"""From rollouts to micro-batches: rows of one after another, no padding, within a token budget. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainingSequence:
    """One rollout to learn from."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    engine_logprobs: tuple[float, ...]
    """Of ``completion_ids``, as the engine reported them."""
    advantage: float

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True)
class MicroBatch:
    """One packed row. T tokens in all, N of them trained (the completions')."""

    input_ids: Tensor  # [1, T]
    position_ids: Tensor  # [1, T], from 0 in each sequence
    cu_seq_lens: Tensor  # [sequences + 1] int32
    max_length: int
    predictors: Tensor  # [N] positions in the row whose next token is trained
    targets: Tensor  # [N] those next tokens
    advantages: Tensor  # [N]
    engine_logprobs: Tensor  # [N]


def assign_rows(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """First-fit decreasing: indices of ``lengths`` grouped into rows of at most ``budget`` tokens.

    A sequence longer than the budget gets a row of its own; none is dropped. Ties go by index, so equal input gives
    equal rows. Rows come back in order of their first index, indices within a row ascending.
    """
    if budget < 1:
        raise ValueError(f"a row needs a budget of at least one token, not {budget}")
    rows: list[list[int]] = []
    space: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        row = next((r for r, free in enumerate(space) if free >= lengths[index]), None)
        if row is None:
            rows.append([])
            space.append(max(budget, lengths[index]))
            row = len(rows) - 1
        rows[row].append(index)
        space[row] -= lengths[index]
    return sorted(sorted(row) for row in rows)


def pack(sequences: Sequence[TrainingSequence], budget: int) -> list[MicroBatch]:
    """Micro-batches holding every sequence once, each within ``budget`` tokens where one sequence allows."""
    rows = assign_rows([len(sequence) for sequence in sequences], budget)
    return [_micro_batch([sequences[index] for index in row]) for row in rows]


def _micro_batch(sequences: Sequence[TrainingSequence]) -> MicroBatch:
    tokens: list[int] = []
    positions: list[int] = []
    borders = [0]
    predictors: list[int] = []
    advantages: list[float] = []
    engine_logprobs: list[float] = []
    for sequence in sequences:
        first_trained = borders[-1] + len(sequence.prompt_ids)
        tokens += (*sequence.prompt_ids, *sequence.completion_ids)
        positions += range(len(sequence))
        borders.append(len(tokens))
        predictors += range(first_trained - 1, len(tokens) - 1)
        advantages += [sequence.advantage] * len(sequence.completion_ids)
        engine_logprobs += sequence.engine_logprobs
    input_ids = torch.tensor([tokens])
    where = torch.tensor(predictors, dtype=torch.int64)
    return MicroBatch(
        input_ids=input_ids,
        position_ids=torch.tensor([positions]),
        cu_seq_lens=torch.tensor(borders, dtype=torch.int32),
        max_length=max(len(sequence) for sequence in sequences),
        predictors=where,
        targets=input_ids[0, where + 1],
        advantages=torch.tensor(advantages, dtype=torch.float32),
        engine_logprobs=torch.tensor(engine_logprobs, dtype=torch.float32),
    )

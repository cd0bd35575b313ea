"""From rollouts to micro-batches: rows of one after another, no padding, within a token budget. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TrainingSequence:
    """One rollout to learn from: n completion tokens after their prompt. Arrays, so that it travels between ranks."""

    prompt_ids: numpy.ndarray  # int32
    completion_ids: numpy.ndarray  # [n] int32
    engine_logprobs: numpy.ndarray  # [n] float32, of completion_ids as the engine reported them
    advantages: (
        numpy.ndarray
    )  # [n] float32; one number for all of a rollout's tokens in RL, one per token in distillation
    weight: float = 1.0
    """What each of its tokens counts in the loss, beside the global denominator (1 / n in a mean over rollouts)."""
    reference_logprobs: numpy.ndarray | None = None  # [n], of the reference model (KL penalty) or the teacher
    label: str = ""
    """What it is told apart by in metrics (its prompt's domain)."""
    kept: numpy.ndarray | None = None
    """[n, K] int32, filled up with -1: what each token was drawn from, where probabilities are those of the kept tokens
    alone (``mismatch.support: kept``)."""
    temperature: float = 1.0
    """The temperature at which the policy is compared with whoever drew the tokens."""

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


def training_sequence(
    prompt_ids: Sequence[int],
    completion_ids: Sequence[int],
    engine_logprobs: Sequence[float],
    advantage: float | Sequence[float],
    weight: float = 1.0,
    label: str = "",
    kept: numpy.ndarray | None = None,
    temperature: float = 1.0,
) -> TrainingSequence:
    """A ``TrainingSequence`` from plain lists; one ``advantage`` holds for all tokens."""
    n = len(completion_ids)
    return TrainingSequence(
        numpy.asarray(prompt_ids, numpy.int32),
        numpy.asarray(completion_ids, numpy.int32),
        numpy.asarray(engine_logprobs, numpy.float32),
        numpy.broadcast_to(numpy.asarray(advantage, numpy.float32), (n,)).copy(),
        weight,
        label=label,
        kept=kept,
        temperature=temperature,
    )


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
    weights: Tensor  # [N]
    reference_logprobs: Tensor | None = None  # [N]
    from_rollouts: Tensor | None = None  # [N], what a loss has computed from whole rollouts (``Update``'s screen)
    kept: Tensor | None = None  # [N, K], see ``TrainingSequence``
    first: int = 0
    """Of a row that several ranks share: where this rank's tokens begin; borders are those of the whole row."""
    labels: tuple[str, ...] = ()  # [sequences]
    prefixes: tuple[tuple[int, int], ...] = ()
    """Of each segment between borders, where in the row the tokens lie that it sees before its own; () for none."""
    trained: tuple[int, ...] | None = None
    """[sequences] trained tokens, where borders do not tell them (``shared_prompts.shared_row``)."""
    temperature: float = 1.0
    """The temperature of all log-probs and of the loss: logits are divided by it."""

    def to(self, device: torch.device) -> MicroBatch:
        """The same on ``device``."""
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in vars(self).items()}
        return MicroBatch(**moved)

    @property
    def is_cut(self) -> bool:
        """Whether these are a part of the row's tokens (``ulysses.cut``)."""
        return int(self.cu_seq_lens[-1]) != self.input_ids.shape[1]

    @property
    def sequence_lengths(self) -> Tensor:
        """[segments] tokens that each segment sees, those of its prefix included."""
        own = torch.diff(self.cu_seq_lens)
        if not self.prefixes:
            return own
        return own + torch.tensor([last - first for first, last in self.prefixes], device=own.device)

    @property
    def lengths(self) -> Tensor:
        """[sequences] trained tokens of each sequence, in row order."""
        if self.trained is not None:
            return torch.tensor(self.trained, device=self.predictors.device)
        borders = self.cu_seq_lens.to(self.predictors) - self.first
        return torch.diff(torch.searchsorted(self.predictors, borders[1:] - 1), prepend=torch.zeros_like(borders[:1]))


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
    return [pack_row([sequences[index] for index in row]) for row in rows]


def pack_row(sequences: Sequence[TrainingSequence]) -> MicroBatch:
    """One row of ``sequences`` (at least one), in their order."""
    tokens = numpy.concatenate([part for s in sequences for part in (s.prompt_ids, s.completion_ids)])
    lengths = [len(s) for s in sequences]
    borders = numpy.concatenate([[0], numpy.cumsum(lengths)])
    predictors = numpy.concatenate(
        [numpy.arange(end - len(s.completion_ids) - 1, end - 1) for s, end in zip(sequences, borders[1:], strict=True)]
    )
    references = [s.reference_logprobs for s in sequences if s.reference_logprobs is not None]
    assert len(references) in (0, len(sequences)), "all sequences of a row have reference log-probs, or none"
    input_ids = torch.from_numpy(tokens.astype(numpy.int64))[None]
    where = torch.from_numpy(predictors.astype(numpy.int64))
    return MicroBatch(
        input_ids=input_ids,
        position_ids=torch.cat([torch.arange(length) for length in lengths])[None],
        cu_seq_lens=torch.from_numpy(borders.astype(numpy.int32)),
        max_length=max(lengths),
        predictors=where,
        targets=input_ids[0, where + 1],
        advantages=torch.from_numpy(numpy.concatenate([s.advantages for s in sequences])),
        engine_logprobs=torch.from_numpy(numpy.concatenate([s.engine_logprobs for s in sequences])),
        weights=torch.from_numpy(
            numpy.concatenate([numpy.full(len(s.completion_ids), s.weight, numpy.float32) for s in sequences])
        ),
        # A row of nothing to learn has all that the others have, whatever it is.
        reference_logprobs=torch.from_numpy(numpy.concatenate([*references, numpy.empty(0, numpy.float32)]))
        if references or not len(predictors)
        else None,
        kept=_kept(sequences),
        labels=tuple(s.label for s in sequences),
        temperature=_temperature(sequences),
    )


def _temperature(sequences: Sequence[TrainingSequence]) -> float:
    """The temperature that the sequences have in common. One without trained tokens may have any."""
    found = {s.temperature for s in sequences if len(s.completion_ids)} or {sequences[0].temperature}
    assert len(found) == 1, f"all sequences of a row have one temperature, not {sorted(found)}"
    return found.pop()


def _kept(sequences: Sequence[TrainingSequence]) -> Tensor | None:
    """What the row's tokens were drawn from, all as wide as the widest."""
    found = [s.kept for s in sequences if s.kept is not None]
    if not found:
        return None
    assert sum(map(len, found)) == sum(len(s.completion_ids) for s in sequences), "all of a row's tokens, or none"
    width = max(kept.shape[1] for kept in found)
    wide = [numpy.pad(kept, ((0, 0), (0, width - kept.shape[1])), constant_values=-1) for kept in found]
    return torch.from_numpy(numpy.concatenate(wide))

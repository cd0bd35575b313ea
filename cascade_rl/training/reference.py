"""Frozen models that say how likely they find a policy's tokens: the reference of a KL penalty, teachers of a student.

Each gives back the step's sequences with ``reference_logprobs`` filled in, scored on packed rows before the update. So
the update itself stays one forward and one backward pass, and the frozen weights need not be at hand during it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from cascade_rl.algorithms.logprobs import chunked_logprobs
from cascade_rl.training.forward import hidden_and_head
from cascade_rl.training.lora import adapters_off
from cascade_rl.training.packing import MicroBatch, TrainingSequence, assign_rows, pack_row
from cascade_rl.training.policy import Policy, load_model


class Reference(Protocol):
    """What a loss compares the policy with."""

    def fill(self, sequences: Sequence[TrainingSequence]) -> list[TrainingSequence]:
        """``sequences`` in their order, each with the reference's log-probs of its completion at its temperature; or as
        they are, where ``fill_row`` does it."""
        ...

    def fill_row(self, row: MicroBatch) -> MicroBatch:
        """This rank's ``row``, just before it is trained on; all ranks come here equally often where passes are
        collective."""
        ...


class FrozenModel:
    """A causal LM without gradient or optimizer: a ``Reference``.

    It computes what a policy with these weights would, bit for bit on equal rows: in float32, or under bfloat16
    autocast. With ``offload`` its weights wait on the CPU between calls; they never change, so nothing is
    copied back. Several on one device then take turns, and there is room for the trainer afterwards.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device: torch.device,
        dtype: str,
        chunk_tokens: int | None,
        row_tokens: int,
        offload: bool = False,
    ) -> None:
        """``row_tokens``: of a packed row. Raises CascadeError when transformers cannot read the checkpoint."""
        model = load_model(Path(checkpoint), device, keep_on_cpu=True).eval().requires_grad_(False)
        self._half = dtype == "bfloat16"
        if self._half:
            _halve_linear_layers(model)
        self._device, self._offload = device, offload
        if offload and device.type == "cuda":
            for tensor in _tensors(model):
                tensor.data = tensor.data.pin_memory()  # or else each way up takes three times as long
        self._model = model if offload else model.to(device)
        self._chunk_tokens, self._row_tokens = chunk_tokens, row_tokens

    @property
    def positions(self) -> int | None:
        """Tokens of the longest sequence it was made for, prompt included."""
        config = self._model.config
        positions = getattr(config, "max_position_embeddings", None)
        rope = getattr(config, "rope_parameters", None) or {}
        stretched = rope.get("factor", 0) * rope.get("original_max_position_embeddings", 0)
        return max(positions, int(stretched)) if positions else None

    @property
    def vocabulary(self) -> int:
        """Rows of its head: token ids from 0 up to this can be scored."""
        return int(self._model.get_output_embeddings().weight.shape[0])

    @torch.no_grad()
    def fill(self, sequences: Sequence[TrainingSequence]) -> list[TrainingSequence]:
        """See ``Reference``."""
        with self._on_device():
            return filled(sequences, self._logprobs, self._row_tokens)

    def fill_row(self, row: MicroBatch) -> MicroBatch:
        """Its sequences are filled already."""
        return row

    def _logprobs(self, row: MicroBatch) -> Tensor:
        row = row.to(self._device)
        hidden, head = hidden_and_head(self._model, row, half=self._half)
        scores = chunked_logprobs(
            hidden, head, row.targets, temperature=row.temperature, chunk_tokens=self._chunk_tokens, kept=row.kept
        )
        return scores.logprobs

    @contextlib.contextmanager
    def _on_device(self) -> Iterator[None]:
        if not self._offload:
            yield
            return
        waiting = [(tensor, tensor.data) for tensor in _tensors(self._model)]
        try:
            for tensor, data in waiting:
                tensor.data = data.to(self._device, non_blocking=True)
            yield
        finally:
            for tensor, data in waiting:
                tensor.data = data


class WithoutAdapters:
    """The policy that adapters were put on, as it was before: a ``Reference`` that takes no memory of its own.

    A pass through a policy may be collective, so it is made where the rows are shared out already.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def fill(self, sequences: Sequence[TrainingSequence]) -> list[TrainingSequence]:
        """``fill_row`` does it."""
        return list(sequences)

    def fill_row(self, row: MicroBatch) -> MicroBatch:
        """See ``Reference``. A collective call where passes are."""
        with adapters_off(self._policy.model):
            scores = self._policy.score(row)
        return dataclasses.replace(row, reference_logprobs=scores.logprobs)


def filled(
    sequences: Sequence[TrainingSequence], score: Callable[[MicroBatch], Tensor], row_tokens: int
) -> list[TrainingSequence]:
    """``sequences`` with ``reference_logprobs`` by ``score`` (packed row of at most ``row_tokens`` -> [N])."""
    result = list(sequences)
    for indices in assign_rows([len(sequence) for sequence in sequences], row_tokens):
        row = pack_row([dataclasses.replace(sequences[i], reference_logprobs=None) for i in indices])
        parts = score(row).float().cpu().split([len(sequences[i].completion_ids) for i in indices])
        for index, part in zip(indices, parts, strict=True):
            result[index] = dataclasses.replace(sequences[index], reference_logprobs=part.numpy())
    return result


def _tensors(model: torch.nn.Module) -> Iterator[Tensor]:
    """Weights and buffers, tied ones once."""
    return itertools.chain(model.parameters(), model.buffers())


def _halve_linear_layers(model: torch.nn.Module) -> None:
    """Keep linear layers in bfloat16, as autocast would cast them at each use anyway, so results stay the same. Norms,
    which compute in float32, are left alone, and so is the head, which may be the embedding as well."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            module.to(torch.bfloat16)

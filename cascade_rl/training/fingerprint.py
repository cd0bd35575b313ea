"""Which weights are these? A name for them that costs one look at each, on the device where they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


class Fingerprint:
    """Watches weights on their way to an engine; ``value`` names those that have passed.

    Of each tensor the sum and the norm, in float64: equal for equal weights on the same device and with as many
    threads, and different after any optimizer step.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._numbers: list[Tensor] = []

    def of(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The same ``weights``, watched."""
        for name, tensor in weights:
            self._names.append(name)
            # Read together at the end: each number that is read makes the processor wait for the device.
            self._numbers += [
                tensor.sum(dtype=torch.float64),
                torch.linalg.vector_norm(tensor.float() if tensor.dtype.itemsize < 4 else tensor, dtype=torch.float64),
            ]
            yield name, tensor

    @property
    def value(self) -> str:
        """Sixteen hex digits."""
        numbers = torch.stack([number.cpu() for number in self._numbers]).tolist() if self._numbers else []
        text = "\x1f".join([*self._names, *(number.hex() for number in numbers)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

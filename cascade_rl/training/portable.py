"""Weights and moments on disk, by parameter name: written by any number of ranks, read by any other, however sharded.

Every strategy keeps runs of flattened parameters (``Piece``), so a file is a list of such runs, and a reader takes from
all files what overlaps with its own. Going on is bit for bit the same where the sums are, that is with as many ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade_rl.training.ranks import Ranks
from cascade_rl.training.sharding.base import MOMENTS, Piece
from cascade_rl.training.state import Record, hashed_file
from cascade_rl.types import CascadeError

Entry = dict[str, Any]
"""A piece on disk: start, shape, step (None before the first), and tensors [n]."""


def entries_of(pieces: Iterable[Piece], optimizer: torch.optim.Optimizer) -> dict[str, Entry]:
    """``pieces`` with their moments, by name, as views into what is trained."""
    return {
        piece.name: {"start": piece.start, "shape": piece.shape, "weight": piece.weight, **moments_of(piece, optimizer)}
        for piece in pieces
    }


def write(path: Path, entries: Mapping[str, Entry]) -> Record:
    """Write ``entries`` to ``path``, on the disk when this returns; returns the file's size and hash.

    Raises OSError when the disk takes no more.
    """
    with hashed_file(path) as file:
        torch.save(dict(entries), file)
    return file.record


def moments_of(piece: Piece, optimizer: torch.optim.Optimizer) -> Entry:
    """``step`` and the moments [n] of ``piece``, as views; ``step`` alone, and None, before the first step."""
    state = optimizer.state.get(piece.owner)
    if not state:
        return {"step": None}
    return {"step": int(state["step"])} | {key: _run(state[key], piece) for key in MOMENTS}


def _run(whole: Tensor, piece: Piece) -> Tensor:
    local = whole.to_local() if hasattr(whole, "to_local") else whole
    return local.view(-1)[piece.offset : piece.offset + piece.weight.numel()]


def read(paths: Iterable[Path], pieces: Iterable[Piece], optimizer: torch.optim.Optimizer, *, weights: bool) -> None:
    """Fill ``pieces`` and their moments in place from files that together hold them; ``weights`` or moments alone.

    Raises CascadeError for what is not there, or has another shape.
    """
    files = [torch.load(path, map_location="cpu", mmap=True, weights_only=True) for path in paths]
    with torch.no_grad():
        for piece in pieces:
            entries = [file[piece.name] for file in files if piece.name in file]
            _check(piece, entries)
            if weights:
                _fill(piece.weight, piece, entries, "weight")
            if entries[0]["step"] is not None:
                _begin(piece, optimizer, entries[0]["step"])
                for key in MOMENTS:
                    _fill(_run(optimizer.state[piece.owner][key], piece), piece, entries, key)


def _check(piece: Piece, entries: list[Entry]) -> None:
    shapes = {tuple(entry["shape"]) for entry in entries}
    if shapes != {piece.shape}:
        found = f"has shape {sorted(shapes)}" if shapes else "is not there"
        raise CascadeError(f"{piece.name} of shape {piece.shape} {found}: it is the state of another model")


def _begin(piece: Piece, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Moments for ``piece``'s owner, where it has none yet, and its step count."""
    state, owner = optimizer.state[piece.owner], piece.owner
    for key in MOMENTS:
        if key not in state:
            state[key] = torch.zeros_like(owner, memory_format=torch.preserve_format)
    on_device = optimizer.defaults.get("fused") or optimizer.defaults.get("capturable")
    state["step"] = torch.tensor(float(step), dtype=torch.float32, device=owner.device if on_device else "cpu")


def _fill(target: Tensor, piece: Piece, entries: list[Entry], key: str) -> None:
    """``target`` [n] from the runs that overlap with it. Raises CascadeError when some of it is in none."""
    filled = 0
    for entry in entries:
        source = entry[key]
        first = max(piece.start, entry["start"])
        last = min(piece.start + target.numel(), entry["start"] + source.numel())
        if first < last:
            target[first - piece.start : last - piece.start].copy_(
                source[first - entry["start"] : last - entry["start"]]
            )
            filled += last - first
    if filled != target.numel():
        raise CascadeError(f"of {piece.name} only {filled} of {target.numel()} numbers are there: files are missing")


def whole_moments(
    shapes: Iterable[tuple[str, torch.Size]], pieces: Iterable[Piece], optimizer: torch.optim.Optimizer, ranks: Ranks
) -> Iterator[tuple[str, Entry]]:
    """(name, entry without weight) of every parameter, whole and on the CPU, on the main rank; others get nothing.

    A collective call, a parameter at a time: each rank's runs are laid into zeros and summed.
    """
    mine = {piece.name: piece for piece in pieces}
    for name, shape in shapes:
        piece = mine.get(name)
        own: Entry = moments_of(piece, optimizer) if piece else {"step": None}
        step = int(ranks.max(-1 if own["step"] is None else own["step"]))
        entry: Entry = {"start": 0, "shape": tuple(shape), "step": None if step < 0 else step}
        for key in MOMENTS if step >= 0 else ():
            whole = torch.zeros(shape.numel(), device=ranks.device)
            if piece:
                whole[piece.start : piece.start + piece.weight.numel()] = own[key].to(whole)
            entry[key] = ranks.sum(whole).cpu()
        if ranks.is_main:
            yield name, entry

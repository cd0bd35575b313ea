"""Who am I among the processes of this stage: the only reader of torch.distributed.

accelerate misreports rank and world size under DeepSpeed on CPU, so nothing else may be asked (shared notes
"training", section 8).
"""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process's place. With one process every collective is a no-op."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks, in place; every rank gets it."""
        if self.world_size > 1:
            dist.all_reduce(values, op=dist.ReduceOp.SUM)
        return values

    def any(self, flag: bool) -> bool:
        """True everywhere if it is on one rank."""
        return self.max(float(flag)) > 0

    def max(self, value: float) -> float:
        """Largest over ranks; NaN, which compares with nothing, counts as infinity."""
        value = math.inf if math.isnan(value) else value
        if self.world_size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return float(tensor.item())

    def gather(self, value: Any) -> list[Any]:
        """Small picklable objects of all ranks, in rank order, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def exchange(self, parts: Sequence[bytes]) -> list[bytes]:
        """``parts[r]`` goes to rank r; returns what each rank had for this one, in rank order."""
        sizes = self.gather([len(part) for part in parts])
        incoming = [row[self.rank] for row in sizes]
        sent = torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8) if any(parts) else torch.empty(0)
        received = torch.empty(sum(incoming), dtype=torch.uint8, device=self.device)
        dist.all_to_all_single(received, sent.to(self.device, torch.uint8), incoming, [len(part) for part in parts])
        return [part.numpy().tobytes() for part in received.cpu().split(incoming)]

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()


def join(timeout_s: float = 1800.0) -> Ranks:
    """Join the process group that the environment describes (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT)."""
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", timeout=datetime.timedelta(seconds=timeout_s)
        )
    return Ranks(rank, world_size, device)


def ensure_group(ranks: Ranks) -> None:
    """A process group of one where there is none: sharding wants one, though a single process shares with nobody."""
    if not dist.is_initialized():
        backend = "nccl" if ranks.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=ranks.rank, world_size=ranks.world_size)


def leave() -> None:
    """Leave the process group, if one was joined."""
    if dist.is_initialized():
        dist.destroy_process_group()

"""How the supervisors of one launch agree: through files in the run's folder, without a network protocol of our own.

Rank 0 decides, the others follow. A launch may find files of an earlier, killed one, so nothing is believed that does
not carry a nonce of this launch:

    rank k                                rank 0
    writes join/k {nonce_k}        ──►    lists all nonces in session.json under a fresh session id,
                                          again whenever a join changes (a stale one was replaced)
    sees its own nonce listed,
    writes ack/k {session id}      ──►    all acks carry the id: the session stands
    waits for orders/000001.json   ◄──    writes the order
    starts its child, writes
    reports/000001-k.json          ──►    first failure ends the order for all (orders/000001.cancel)
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascade_rl.store.files import read_json, write_json
from cascade_rl.types import CascadeError

POLL_S = 0.1


@dataclass(frozen=True)
class RankInfo:
    """This supervisor's rank, as its launcher says."""

    rank: int
    world_size: int
    local_rank: int
    master_addr: str

    @classmethod
    def from_environment(cls) -> RankInfo:
        get = os.environ.get
        return cls(
            rank=int(get("RANK", "0")),
            world_size=int(get("WORLD_SIZE", "1")),
            local_rank=int(get("LOCAL_RANK", "0")),
            master_addr=get("MASTER_ADDR", "127.0.0.1"),
        )


@dataclass
class Session:
    """One launch's supervisors, once ``open_session`` has brought them together."""

    folder: Path
    rank_info: RankInfo
    _number: int = field(default=0)

    def give_order(self, order: Mapping[str, Any]) -> int:
        """Rank 0: publish the next order; returns its number."""
        self._number += 1
        write_json(self._order(self._number), dict(order))
        return self._number

    def next_order(self, alive: Callable[[], None]) -> dict[str, Any]:
        """Other ranks: wait for the next order. ``alive`` is called while waiting and may raise."""
        self._number += 1
        while True:
            order = read_json(self._order(self._number))
            if order is not None:
                return order
            alive()
            time.sleep(POLL_S)

    @property
    def number(self) -> int:
        """Number of the order in hand."""
        return self._number

    def report(self, result: Mapping[str, Any]) -> None:
        """This rank's part of the order in hand has ended."""
        write_json(self.folder / "reports" / f"{self._number:06d}-{self.rank_info.rank}.json", dict(result))

    def reports(self) -> dict[int, dict[str, Any]]:
        """Reports so far on the order in hand, by rank."""
        found = {}
        for rank in range(self.rank_info.world_size):
            report = read_json(self.folder / "reports" / f"{self._number:06d}-{rank}.json")
            if report is not None:
                found[rank] = report
        return found

    def cancel(self) -> None:
        """Rank 0: end the order in hand on all ranks."""
        write_json(self._order(self._number).with_suffix(".cancel"), {})

    @property
    def is_cancelled(self) -> bool:
        return self._order(self._number).with_suffix(".cancel").exists()

    def _order(self, number: int) -> Path:
        return self.folder / "orders" / f"{number:06d}.json"


def open_session(folder: Path, info: RankInfo, patience_s: float = 300.0) -> Session:
    """Bring this launch's supervisors together over ``folder`` (shared by all hosts).

    Raises CascadeError naming the missing ranks when not all appear within ``patience_s``.
    """
    if info.rank == 0:
        return _lead(folder, info, patience_s)
    return _follow(folder, info, patience_s)


def _lead(folder: Path, info: RankInfo, patience_s: float) -> Session:
    identity = uuid.uuid4().hex[:12]
    session = folder / f"session-{identity}"
    if folder.is_dir():
        for old in folder.glob("session-*"):
            if old.is_dir():
                shutil.rmtree(old, ignore_errors=True)
    (session / "orders").mkdir(parents=True)
    (session / "reports").mkdir()
    others = range(1, info.world_size)
    listed: dict[str, str] | None = None
    deadline = time.monotonic() + patience_s
    while True:
        joins = {str(rank): read_json(folder / "join" / f"{rank}.json") for rank in others}
        nonces = {rank: join["nonce"] for rank, join in joins.items() if join}
        if nonces != listed:
            write_json(folder / "session.json", {"id": identity, "world_size": info.world_size, "nonces": nonces})
            listed = nonces
        acks = {rank: read_json(folder / "ack" / f"{rank}.json") for rank in others}
        missing = [rank for rank, ack in acks.items() if not ack or ack["id"] != identity]
        if not missing:
            return Session(session, info)
        if time.monotonic() > deadline:
            raise CascadeError(
                f"ranks {missing} of {info.world_size} did not appear within {patience_s:.0f} s; "
                f"all hosts must see the same folder {folder}"
            )
        time.sleep(POLL_S)


def _follow(folder: Path, info: RankInfo, patience_s: float) -> Session:
    nonce = uuid.uuid4().hex
    write_json(folder / "join" / f"{info.rank}.json", {"nonce": nonce})
    deadline = time.monotonic() + patience_s
    while True:
        session = read_json(folder / "session.json")
        if session and session["nonces"].get(str(info.rank)) == nonce:
            write_json(folder / "ack" / f"{info.rank}.json", {"id": session["id"]})
            return Session(folder / f"session-{session['id']}", info)
        if time.monotonic() > deadline:
            raise CascadeError(f"rank {info.rank}: rank 0 did not appear within {patience_s:.0f} s in {folder}")
        time.sleep(POLL_S)

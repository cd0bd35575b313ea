"""Messages between a pool and its workers: bytes with an 8-byte length before them, on a socket pair.

A socket pair, not pipes: the manager waits for both directions under its deadline, so neither a half-written verdict
nor a worker that stopped reading can hold it.
"""

from __future__ import annotations

import select
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cascade_rl.rewarding.deadline import Deadline

_HEADER = struct.Struct(">Q")
_CHUNK = 1 << 16


class Channel:
    """One end of the socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, message: bytes, deadline: Deadline | None = None) -> None:
        """Raises TimeoutError past ``deadline``, EOFError or OSError when the other side has gone."""
        left = memoryview(_HEADER.pack(len(message)) + message)
        while left:
            if deadline is None:
                left = left[self._end.send(left) :]
            else:
                deadline.wait(self._end.fileno(), select.POLLOUT)
                left = left[self._end.send(left, socket.MSG_DONTWAIT) :]

    def receive(self, deadline: Deadline | None = None) -> bytes:
        """The next message; there is never more than one under way. Raises as ``send`` does."""
        data = bytearray()
        wanted = _HEADER.size
        while len(data) < wanted:
            if deadline is not None:
                deadline.wait(self._end.fileno(), select.POLLIN)
            chunk = self._end.recv(_CHUNK)
            if not chunk:
                raise EOFError
            data += chunk
            if wanted == _HEADER.size and len(data) >= wanted:
                wanted += _HEADER.unpack_from(data)[0]
        return bytes(data[_HEADER.size : wanted])

    def close(self) -> None:
        self._end.close()

"""Messages between a pool and its workers: bytes with an 8-byte length before them, on a socket pair.

A socket pair, not pipes: each direction can be given a deadline, so neither a half-written verdict nor a worker that
stopped reading can hold its manager.
"""

from __future__ import annotations

import socket
import struct
import time

_HEADER = struct.Struct(">Q")
_CHUNK = 1 << 16


class Channel:
    """One end of the socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, message: bytes, deadline: float | None = None) -> None:
        """Raises TimeoutError past ``deadline`` (of ``time.monotonic``), OSError when the other side has gone."""
        self._limit(deadline)
        self._end.sendall(_HEADER.pack(len(message)) + message)

    def receive(self, deadline: float | None = None) -> bytes:
        """The next message; there is never more than one under way.

        Raises TimeoutError past ``deadline``, EOFError or OSError when the other side has gone.
        """
        data = bytearray()
        wanted = _HEADER.size
        while len(data) < wanted:
            self._limit(deadline)
            chunk = self._end.recv(_CHUNK)
            if not chunk:
                raise EOFError
            data += chunk
            if wanted == _HEADER.size and len(data) >= wanted:
                wanted += _HEADER.unpack_from(data)[0]
        return bytes(data[_HEADER.size : wanted])

    def close(self) -> None:
        self._end.close()

    def _limit(self, deadline: float | None) -> None:
        # A time-out of zero would mean "do not wait at all" and raise BlockingIOError instead of TimeoutError.
        self._end.settimeout(None if deadline is None else max(1e-3, deadline - time.monotonic()))

"""Messages between supervisor and warm interpreter: a JSON header and file descriptors, on a stream socket.

What a program is given and what it puts out are in files of memory whose descriptors alone are passed: the warm
interpreter never reads them. It would keep traces of them in its memory, which every later program inherits.

JSON, never pickle: the far side is not trusted with what the supervisor loads.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

_LENGTH = struct.Struct(">I")
_MOST_HEADER = 1 << 16
_MOST_DESCRIPTORS = 16


class Deadline(Protocol):
    """What the supervisor waits with; it is ``cascade_rl.rewarding.deadline.Deadline``."""

    def wait(self, descriptor: int, event: int) -> None: ...


def send(
    end: socket.socket, header: Mapping[str, Any], descriptors: Sequence[int] = (), deadline: Deadline | None = None
) -> None:
    """Raises TimeoutError past ``deadline``, OSError when the other side has gone."""
    text = json.dumps(dict(header)).encode()
    message = _LENGTH.pack(len(text)) + text
    _wait(end, select.POLLOUT, deadline)
    sent = socket.send_fds(end, [message], descriptors) if descriptors else 0
    end.sendall(message[sent:])


def receive(end: socket.socket, deadline: Deadline | None = None) -> tuple[dict[str, Any], list[int]]:
    """The next message. Raises TimeoutError, EOFError or OSError like ``send``, ValueError for nonsense."""
    _wait(end, select.POLLIN, deadline)
    first, descriptors = _first(end)
    try:
        (length,) = _LENGTH.unpack(first + _exactly(end, _LENGTH.size - len(first), deadline))
        if length > _MOST_HEADER:
            raise ValueError("header too long")
        header = json.loads(_exactly(end, length, deadline))
        if not isinstance(header, dict):
            raise ValueError("no header")
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return header, descriptors


def _first(end: socket.socket) -> tuple[bytes, list[int]]:
    """The first bytes of a message, and the descriptors that come with them."""
    room = socket.CMSG_SPACE(_MOST_DESCRIPTORS * array.array("i").itemsize)
    data, attached, _, _ = end.recvmsg(_LENGTH.size, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in attached:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    if not data:
        raise EOFError
    return data, list(descriptors)


def _exactly(end: socket.socket, size: int, deadline: Deadline | None) -> bytes:
    data = bytearray()
    while len(data) < size:
        _wait(end, select.POLLIN, deadline)
        chunk = end.recv(size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)


def _wait(end: socket.socket, event: int, deadline: Deadline | None) -> None:
    if deadline is not None:
        deadline.wait(end.fileno(), event)

"""Messages between a pool and its workers: pickles with an 8-byte length before them."""

from __future__ import annotations

import pickle
import struct
import traceback
from typing import IO, Any

HEADER = struct.Struct(">Q")


def send(pipe: IO[bytes], message: object) -> None:
    data = pickle.dumps(message)
    pipe.write(HEADER.pack(len(data)) + data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """The next message. Raises EOFError when the other side has gone."""
    header = pipe.read(HEADER.size)
    if len(header) < HEADER.size:
        raise EOFError
    (length,) = HEADER.unpack(header)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


def short_trace(error: BaseException) -> str:
    """Type, text and the innermost places of an exception."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = "\n".join(f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)
    return f"{type(error).__name__}: {error}\n{places}"

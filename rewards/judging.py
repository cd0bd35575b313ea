"""What generative judges share: asking, reading a verdict out of what was said, asking again, remembering.

A verdict is the last JSON object of the reply. A reply without one, or with one that makes no sense, is asked for
again; after ``parse_tries`` of these there is no verdict, which is an error of the judge and never a score.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cascade_rl.types import Message
from rewards.chat_server import Server, ServerDown, ask_chat

AGAIN_TEMPERATURE = 0.5
"""Least temperature of a second try: at 0 the judge would say the very same."""
MOST_CHARACTERS = 20_000
"""Of a reply that is searched for a verdict, from its end."""


class Unreadable(Exception):
    """A reply without a verdict that makes sense."""


class AskedJudge:
    """A chat model behind an OpenAI-compatible server (``vllm serve``, SGLang, an API), asked for verdicts.

    ``base_url`` up to and with ``/v1``; ``api_key_env`` names the environment variable with the key; ``body`` holds
    further fields of the request (``{chat_template_kwargs: {enable_thinking: false}}``). Equal questions are asked
    once: verdicts are kept in memory, and in the file ``cache`` if there is one, also for later runs.
    """

    timeout_s = 900.0
    """Where a recipe names none: for all tries together."""

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str | None = None,
        temperature: float = 0.0,
        max_tokens: int = 4096,
        tries: int = 5,
        parse_tries: int = 3,
        request_timeout_s: float = 120.0,
        cache: str | None = None,
        body: dict[str, Any] | None = None,
    ) -> None:
        """Raises ServerDown for an address that is none, or a key that is not set."""
        self._server = Server(base_url, api_key_env, tries, request_timeout_s)
        self._model, self._temperature, self._parse_tries = model, temperature, max(1, parse_tries)
        self._body = {**(body or {}), "max_tokens": max_tokens}
        self._known = VerdictCache(Path(cache) if cache else None)
        self._asking: dict[str, asyncio.Task[Any]] = {}

    async def verdict(self, messages: Sequence[Message], read: Callable[[dict[str, Any]], Any]) -> Any:
        """What ``read`` makes of the judge's verdict on ``messages``: a value of JSON's types.

        ``read`` raises Unreadable for an object that makes no sense. Raises ServerDown when there is no verdict.
        """
        asked = [self._model, [dict(message) for message in messages], self._temperature, self._body]
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        known, value = self._known.get(key)
        if known and isinstance(value, dict):
            with contextlib.suppress(Unreadable):  # a file from elsewhere may hold anything
                return read(value)
        if key not in self._asking:
            task = self._asking[key] = asyncio.ensure_future(self._ask(key, messages, read))
            task.add_done_callback(lambda done: self._settled(key, done))
        # Shielded: one caller's deadline must not take the answer from the others who wait for it.
        return read(await asyncio.shield(self._asking[key]))

    def _settled(self, key: str, task: asyncio.Task[Any]) -> None:
        self._asking.pop(key, None)
        if not task.cancelled():
            task.exception()  # looked at, or asyncio complains when all who waited have gone

    async def _ask(self, key: str, messages: Sequence[Message], read: Callable[[dict[str, Any]], Any]) -> Any:
        last = ""
        for attempt in range(self._parse_tries):
            temperature = max(self._temperature, AGAIN_TEMPERATURE) if attempt else self._temperature
            said = await ask_chat(
                self._server, self._model, messages, **self._body, temperature=temperature, seed=attempt
            )
            try:
                found = last_object(said)
                read(found)
            except Unreadable as error:
                last = f"{error}; it said: {said[-300:]!r}"
                continue
            self._known.put(key, found)
            return found
        raise ServerDown(f"the judge {self._model} gave no verdict in {self._parse_tries} replies; the last: {last}")


def last_object(text: str) -> dict[str, Any]:
    """The last JSON object in ``text`` that is not part of another. Raises Unreadable when there is none."""
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    text = text[-MOST_CHARACTERS:]
    found: dict[str, Any] | None = None
    place = text.find("{")
    while place >= 0:
        try:
            found, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        place = text.find("{", end)
    if found is None:
        raise Unreadable("no JSON object in the reply")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


class VerdictCache:
    """Verdicts by the hash of what was asked, in memory and in a file of JSON lines that only ever grows.

    Processes may share the file: each line is one write under a lock. A line cut short by a crash is passed over, and
    costs one question.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._known: dict[str, Any] | None = None

    def get(self, key: str) -> tuple[bool, Any]:
        """Whether there is a verdict, and the verdict. Raises OSError when the file is there and cannot be read."""
        if self._known is None:
            self._known = dict(self._read())
        return key in self._known, self._known.get(key)

    def put(self, key: str, verdict: Any) -> None:
        """Remember. Raises OSError when the file cannot be written."""
        if self._known is None:
            self._known = dict(self._read())
        self._known[key] = verdict
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"key": key, "verdict": verdict}).encode() + b"\n"
        descriptor = os.open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, b"\n" + line if torn else line)
        finally:
            os.close(descriptor)

    def _read(self) -> list[tuple[str, Any]]:
        if self._file is None or not self._file.exists():
            return []
        found = []
        for line in self._file.read_bytes().split(b"\n"):
            try:
                entry = json.loads(line)
                found.append((str(entry["key"]), entry["verdict"]))
            except (ValueError, KeyError, TypeError):
                continue
        return found

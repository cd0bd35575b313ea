"""The thread that talks to the servers: it sends requests out, asks again for those lost, and reports what came of it.

trainer's thread                       event loop of this thread
submit, cancel ───────────────────►  Dispatcher ──► a task per running request ──► server
events ◄──── finished, given up, told ◄──┘   ▲               │ failed, or too late
                                              └─ asked again ┘
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from cascade_rl.rollout.dispatch import Dispatcher
from cascade_rl.rollout.engine import Request
from cascade_rl.rollout.server_client import BadAnswer, Completion, Refused, ServerClient
from cascade_rl.types import CascadeError

T = TypeVar("T")
_TROUBLE = (BadAnswer, TimeoutError, aiohttp.ClientError, OSError)
PAUSE_S = 1.0
"""Before a server that failed at once, but lives, is asked again."""


@dataclass(frozen=True)
class Finished:
    ticket: int
    completion: Completion
    server: str


@dataclass(frozen=True)
class GivenUp:
    """Asked for as often as allowed, and never answered."""

    ticket: int


@dataclass(frozen=True)
class AskedAgain:
    """For the user: what is being waited for, and why again."""

    text: str
    rollouts: int


@dataclass(frozen=True)
class Broken:
    """Nothing more will come."""

    error: CascadeError


@dataclass
class _Asked:
    ticket: int
    request: Request
    attempts: int = 0


class RequestLoop:
    """Requests go in by ``submit``; ``events`` has what became of them, whenever that is.

    ``slots``: requests running at one server at a time. The rest wait here, so that ``timeout_s`` is a limit on
    generating, not on standing in line.
    """

    def __init__(
        self, clients: Sequence[ServerClient], *, eos: int, slots: int, first: int, timeout_s: float, attempts: int
    ) -> None:
        self.events: queue.SimpleQueue[Finished | GivenUp | AskedAgain | Broken] = queue.SimpleQueue()
        self._clients = clients
        self._eos, self._timeout_s, self._attempts = eos, timeout_s, attempts
        self._dispatcher = Dispatcher(len(clients), slots, first)
        self._asked: dict[int, _Asked] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm-servers", daemon=True)
        self._thread.start()
        self._session = self._wait(self._open())

    # Called by the trainer's thread.

    def submit(self, ticket: int, request: Request) -> None:
        """Ask for ``request``; its events carry ``ticket``."""
        self._loop.call_soon_threadsafe(self._submit, _Asked(ticket, request))

    def cancel(self, ticket: int) -> None:
        """No event of ``ticket`` is wanted any more."""
        self._loop.call_soon_threadsafe(self._cancel, ticket)

    def living(self) -> list[int]:
        """Indices of the servers not known to be dead."""
        return self._ask(lambda: self._dispatcher.living)

    def keep(self, servers: Sequence[int]) -> None:
        """Use only ``servers`` from now on, and with empty caches."""
        self._ask(lambda: self._keep(servers))

    def call(self, path: str, bodies: Mapping[int, Any], method: str, timeout_s: float) -> dict[int, Any]:
        """Call a route at several servers at once: an answer or an exception of each."""
        return self._wait(self._call(path, bodies, method, timeout_s))

    def is_dead(self, server: int) -> bool:
        """Whether ``server`` is gone."""
        return self._wait(self._clients[server].is_dead(self._session))

    def close(self) -> None:
        """Drop everything; the thread ends."""
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _ask(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._wait(call())

    # Called in the event loop.

    async def _open(self) -> aiohttp.ClientSession:
        # A connection per request: a kept one that the server closes just then would look like a failure.
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))

    async def _close(self) -> None:
        self._closed = True
        running = list(self._tasks.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._session.close()

    def _submit(self, asked: _Asked) -> None:
        self._asked[asked.ticket] = asked
        self._dispatcher.add(asked.ticket, asked.request.prompt_id)
        self._send()

    def _cancel(self, ticket: int) -> None:
        self._asked.pop(ticket, None)
        if not self._dispatcher.cancel(ticket) and ticket in self._tasks:
            self._tasks[ticket].cancel()

    def _keep(self, servers: Sequence[int]) -> None:
        for server in set(self._dispatcher.living) - set(servers):
            self._dispatcher.bury(server)
        self._dispatcher.forget_prompts()

    async def _call(self, path: str, bodies: Mapping[int, Any], method: str, timeout_s: float) -> dict[int, Any]:
        calls = [
            self._clients[server].call(self._session, path, body, method=method, timeout_s=timeout_s)
            for server, body in bodies.items()
        ]
        return dict(zip(bodies, await asyncio.gather(*calls, return_exceptions=True), strict=True))

    def _send(self) -> None:
        """Start whatever may start."""
        while not self._closed and (chosen := self._dispatcher.next()) is not None:
            server, ticket = chosen
            self._tasks[ticket] = self._loop.create_task(self._run(server, self._asked[ticket]))

    async def _run(self, server: int, asked: _Asked) -> None:
        """One attempt at one request, and what follows from it."""
        client = self._clients[server]
        try:
            asked.attempts += 1
            completion = await client.generate(self._session, asked.request, self._eos, self._timeout_s)
            self._asked.pop(asked.ticket, None)
            self.events.put(Finished(asked.ticket, completion, client.name))
        except _TROUBLE as error:
            await self._lost(server, asked, error)
        except Refused as error:
            self._break(CascadeError(str(error)))
        except Exception as error:  # ours, then: it must not end in a task that nobody looks at
            self._break(CascadeError(f"talking to the server {client.name} failed: {type(error).__name__}: {error}"))
        finally:
            self._dispatcher.finished(asked.ticket)
            self._tasks.pop(asked.ticket, None)
            self._send()

    async def _lost(self, server: int, asked: _Asked, trouble: Exception) -> None:
        """Ask again for a rollout that did not come back, or give it up."""
        client, request = self._clients[server], asked.request
        if await self._is_dead(server):
            asked.attempts -= 1  # no fault of the rollout's
        else:
            what = f"rollout {request.index} of prompt {request.prompt_id}"
            why = f"within {self._timeout_s:g} s" if isinstance(trouble, TimeoutError) else f"({_said(trouble)})"
            final = asked.attempts >= self._attempts
            then = "given up" if final else f"asked for again, {asked.attempts + 1} of {self._attempts}"
            others = f"{len(self._asked) - 1} others are being waited for"
            text = f"{what} did not come back from {client.name} {why}: {then}; {others}"
            self.events.put(AskedAgain(text, 0 if final else 1))
            if final:
                self._asked.pop(asked.ticket, None)
                self.events.put(GivenUp(asked.ticket))
                return
            if not isinstance(trouble, TimeoutError):
                await asyncio.sleep(PAUSE_S)
        if self._dispatcher.living:
            self._dispatcher.add(asked.ticket, request.prompt_id, avoid=server)

    async def _is_dead(self, server: int) -> bool:
        """Whether ``server`` is gone; if so, it is used no more."""
        client = self._clients[server]
        if server in self._dispatcher.living and not await client.is_dead(self._session):
            return False
        if server in self._dispatcher.living:  # still: others wait for the same answer
            lost = self._dispatcher.load(server)
            if len(self._dispatcher.living) > 1:
                self._dispatcher.bury(server)
                text = f"the vLLM server {client.name} died: its {lost} rollouts are asked for again elsewhere"
                self.events.put(AskedAgain(text, lost))
            else:
                self._break(CascadeError(f"no vLLM server is left: {', '.join(each.name for each in self._clients)}"))
        return True

    def _break(self, error: CascadeError) -> None:
        self.events.put(Broken(error))


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__

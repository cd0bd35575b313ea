"""A stand-in for a vLLM server: it answers like one, or misbehaves as told."""

import asyncio
import json
import threading
from collections.abc import Callable

from aiohttp import web

EOS = 1


def tokens_of(seed: int, count: int) -> list[int]:
    """What a "model" samples from a seed."""
    return [2 + (seed * 31 + position * 7) % 50 for position in range(count)]


class FakeServer:
    """``behave(number, body)``: of the number-th generate request, one of ``answer``, ``hang``, ``drop``, ``garbage``,
    ``abort``, ``short``, or an HTTP status. ``calls``: all other routes that were called, with their bodies. Those in
    ``silent`` are never answered."""

    def __init__(self, behave: Callable[[int, dict], str | int] = lambda number, body: "answer") -> None:
        self.behave = behave
        self.asked: list[dict] = []
        self.dropped = 0
        self.calls: list[tuple[str, object]] = []
        self.failing: dict[str, int] = {}
        self.silent: set[str] = set()
        self.version = "default"
        self.healthy = 200
        self.running = self.most_running = 0
        self._loop = asyncio.new_event_loop()
        self._hold = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner = web.AppRunner(self._app(), handler_cancellation=True)
        self.port = self._do(self._start())
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Nobody listens any more; open connections break."""
        if not self._loop.is_closed():
            self._do(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def release(self) -> None:
        """Let hanging requests answer."""
        self._loop.call_soon_threadsafe(self._hold.set)

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/inference/v1/generate", self._generate)
        app.router.add_route("*", "/{path:.*}", self._other)
        return app

    async def _start(self) -> int:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, shutdown_timeout=0.01)
        await site.start()
        return site._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        await self._runner.cleanup()

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._behave(self.behave(len(self.asked) - 1, body), body, request)
        except asyncio.CancelledError:
            self.dropped += 1
            raise
        finally:
            self.running -= 1

    async def _behave(self, how: str | int, body: dict, request: web.Request) -> web.StreamResponse:
        if how == "hang":
            await self._hold.wait()
        elif how == "drop":
            request.transport.abort()
        elif isinstance(how, int):
            return web.json_response({"error": {"message": "as told"}}, status=how)
        if how == "garbage":
            return web.Response(body=b'{"choices": [{"token_ids": "no"}]}')
        sampling = body["sampling_params"]
        tokens = tokens_of(sampling["seed"], sampling["max_tokens"])
        content = [{"token_id": token, "logprob": -token / 8, "rank": 1, "top_logprobs": []} for token in tokens]
        choice = {
            "index": 0,
            "token_ids": tokens,
            "finish_reason": "abort" if how == "abort" else "length",
            "stop_reason": None,
            "logprobs": {"content": content[1:] if how == "short" else content},
            "weight_versions": [{"version": self.version, "start": 0, "end": len(tokens)}],
        }
        return web.json_response({"request_id": "x", "choices": [choice]})

    async def _other(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/") + (f"?{request.query_string}" if request.query_string else "")
        body = json.loads(await request.read() or b"null")
        if path == "health":
            return web.Response(status=self.healthy)
        self.calls.append((path, body))
        if path in self.silent:
            await self._hold.wait()
        if path in self.failing:
            return web.json_response({"error": {"message": "as told"}}, status=self.failing[path])
        if path == "update_weight_version":
            self.version = body["new_version"]
        if path == "finish_weight_update":
            self.version = body["weight_version"]
        answers = {
            "get_world_size": {"world_size": 2},
            "reset_prefix_cache": {"success": True},
            "v1/models": {"data": [{"id": "m", "max_model_len": 64}]},
        }
        return web.json_response(answers.get(path, {}))

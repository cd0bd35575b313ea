"""What is said to a vLLM server, and how its answers are read. Token ids in, token ids out.

Routes of vLLM 0.32: ``/inference/v1/generate`` (``--enable-scale-out``), and those of its development mode for pausing
and for weights. All coroutines run in one event loop; ``ServerEngine`` has a thread for it.
"""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec

from cascade_rl.rollout.engine import Request
from cascade_rl.rollout.sampling import sampling_fields


class BadAnswer(Exception):
    """A server answered, but not with a rollout; asking again may help."""


class Refused(Exception):
    """A server will not do what was asked of it, however often it is asked."""


class _LogProb(msgspec.Struct):
    logprob: float


class _LogProbs(msgspec.Struct):
    content: list[_LogProb]


class _Span(msgspec.Struct):
    version: str


class Completion(msgspec.Struct):
    """The parts of vLLM's ``GenerateTokensChoice`` that a rollout is made of."""

    token_ids: list[int]
    logprobs: _LogProbs
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    weight_versions: list[_Span] | None = None

    @property
    def versions(self) -> set[str]:
        """Labels of the weights that made its tokens; empty where the server does not say."""
        return {span.version for span in self.weight_versions or ()}


class _Answer(msgspec.Struct):
    choices: list[Completion]


_decoder = msgspec.json.Decoder(_Answer)


def body_of(request: Request, eos: int) -> dict[str, Any]:
    """The JSON of ``/inference/v1/generate``."""
    fields = sampling_fields(request.sampling, request.seed, eos)
    return {"token_ids": list(request.prompt_token_ids), "sampling_params": fields}


def completion_of(raw: bytes) -> Completion:
    """Read an answer. Raises BadAnswer when it is not one, or was cut off by the server."""
    try:
        (completion,) = _decoder.decode(raw).choices
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadAnswer(f"its answer cannot be read: {error}") from error
    if completion.finish_reason not in ("stop", "length"):
        raise BadAnswer(f"it ended the rollout by itself ({completion.finish_reason})")
    if len(completion.logprobs.content) != len(completion.token_ids):
        raise BadAnswer(f"{len(completion.logprobs.content)} log-probs for {len(completion.token_ids)} tokens")
    return completion


class ServerClient:
    """One server. ``log``: of a server of ours, to be named in errors."""

    def __init__(self, url: str, log: str = "") -> None:
        self.url = url.rstrip("/")
        self.log = log

    @property
    def name(self) -> str:
        return f"{self.url} (see {self.log})" if self.log else self.url

    async def generate(
        self, session: aiohttp.ClientSession, request: Request, eos: int, timeout_s: float
    ) -> Completion:
        """One rollout. Closing the connection (cancelling this) makes the server drop the request.

        Raises Refused, BadAnswer, TimeoutError, or aiohttp's errors.
        """
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        url = f"{self.url}/inference/v1/generate"
        async with session.post(url, json=body_of(request, eos), timeout=timeout) as response:
            raw = await response.read()
        if response.status >= 400:
            self._raise(response.status, raw)
        return completion_of(raw)

    async def is_dead(self, session: aiohttp.ClientSession) -> bool:
        """Whether nobody listens there any more, or the server says that its engine is gone."""
        try:
            async with session.get(f"{self.url}/health", timeout=aiohttp.ClientTimeout(total=30.0)) as response:
                return response.status >= 500
        except TimeoutError:
            return False  # overworked, perhaps; each rollout has its own patience
        except (aiohttp.ClientError, OSError):
            return True

    async def call(
        self, session: aiohttp.ClientSession, path: str, body: Any = None, *, timeout_s: float, method: str = "POST"
    ) -> Any:
        """A route of the development mode; returns its JSON. Raises as ``generate`` does."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with session.request(method, f"{self.url}/{path}", json=body, timeout=timeout) as response:
            raw = await response.read()
        if response.status >= 400:
            self._raise(response.status, raw)
        return msgspec.json.decode(raw) if raw else None

    def _raise(self, status: int, raw: bytes) -> None:
        said = raw[:500].decode(errors="replace")
        if 400 <= status < 500 and status not in (408, 429):
            raise Refused(f"the server {self.name} refused a request (HTTP {status}): {said}")
        raise BadAnswer(f"HTTP {status}: {said}")

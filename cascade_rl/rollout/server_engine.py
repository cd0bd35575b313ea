"""vLLM servers on devices of their own as an engine: they generate while the trainer does something else.

Every rank has a ``ServerEngine`` and sends its requests to all servers. The main rank started the servers, and it alone
sends weights; the others join it in gathering them.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from cascade_rl.rollout.engine import EngineBase, Request
from cascade_rl.rollout.request_loop import AskedAgain, Broken, Finished, GivenUp, RequestLoop
from cascade_rl.rollout.sampling import stop_of, text_of
from cascade_rl.rollout.server_client import Refused, ServerClient
from cascade_rl.rollout.server_process import ServerProcess
from cascade_rl.rollout.weight_transfer import WeightTransfer
from cascade_rl.types import CascadeError, Rollout, Stop

CONTROL_S = 900.0
"""How long servers may take to load weights, and to anything else that is not a rollout."""
SPARE_SLOTS = 1.25
"""Requests sent to a server per rollout it generates at a time: some must stand ready when others end."""


class ServerEngine(EngineBase):
    """The implementation of ``Engine`` over HTTP (see there for what the methods promise)."""

    def __init__(
        self,
        loop: RequestLoop,
        clients: Sequence[ServerClient],
        *,
        transfer: WeightTransfer | None,
        name: str,
        tokenizer: Any,
        logprob_temperature: float,
        gather: Callable[[Any], list[Any]],
        say: Callable[[str], None],
        processes: Sequence[ServerProcess] = (),
    ) -> None:
        """``transfer``: of the main rank; None on the others, which send nothing.

        ``name``: of this use of the servers, the same on all ranks; versions are labelled with it, so that weights
        of somebody else who uses the same servers are noticed.
        ``gather``: what every rank hands to it, in rank order. ``processes``: servers of our own,
        which end with the engine.
        """
        super().__init__()
        self._loop, self._clients, self._transfer = loop, clients, transfer
        self._name, self._tokenizer = name, tokenizer
        self.logprob_temperature = logprob_temperature
        self._gather, self._say, self._processes = gather, say, processes
        self._broken: CascadeError | None = None
        self.asked_again = 0
        """Rollouts that had to be asked for again, so far."""
        self.given_up = 0
        """Rollouts that never came back, so far."""

    def submit(self, request: Request) -> None:
        """Send ``request`` to a server, now or when one has room."""
        self._loop.submit(self._enlist(request), request)

    def cancel(self, prompt_id: str, index: int) -> None:
        """Have the server drop one request."""
        ticket = self._strike((prompt_id, index))
        if ticket is not None:
            self._loop.cancel(ticket)

    def clear(self) -> None:
        """Have the servers drop everything that this rank asked for."""
        for prompt_id, index in list(self._numbers):
            self.cancel(prompt_id, index)

    def poll(self, timeout_s: float = 0.0) -> list[Rollout]:
        """What the servers have finished. A rollout that never came back has ``Stop.ABORT`` and no tokens.

        Raises CascadeError when no server is left, or one served other weights than this version's.
        """
        if self._broken:
            raise self._broken
        deadline = time.monotonic() + timeout_s
        arrived: list[Rollout] = []
        while self._requests:
            wait_s = 0.0 if arrived else max(0.0, deadline - time.monotonic())
            try:
                event = self._loop.events.get(timeout=wait_s) if wait_s else self._loop.events.get_nowait()
            except queue.Empty:
                break
            arrived += self._heard(event)
        return arrived

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Serve ``weights`` as ``version``. A collective call: ``weights`` may gather from all ranks as it is iterated.

        Raises CascadeError on every rank when a server could not load them: it may then serve a mixture.
        """
        if in_flight := sum(self._gather(self.in_flight)):  # on any rank; and none begins while another still generates
            raise RuntimeError(f"{in_flight} rollouts are in flight: their tokens would be of two versions")
        trouble: str | None = None
        remaining = iter(weights)
        if self._transfer is not None:
            try:
                self._send(remaining, self._transfer, self._label(version))
            except CascadeError as error:
                trouble = str(error)
        for _ in remaining:  # ranks that do not send gather along, also when the sending one has given up
            pass
        trouble, living = self._gather((trouble, self._loop.living()))[0]
        if trouble:
            raise CascadeError(trouble)
        self._loop.keep(living)
        self._version = version

    def sleep(self) -> None:
        """Servers have devices of their own: they stay awake."""

    def close(self) -> None:
        """Drop what is in flight, and end the servers if they are ours."""
        self._loop.close()
        if self._transfer is not None:
            self._transfer.close()
        for process in self._processes:
            process.close()

    def _send(self, weights: Iterable[tuple[str, Tensor]], transfer: WeightTransfer, label: str) -> None:
        fleet = LivingFleet(self._loop, self._clients, self._say)
        fleet.call("pause?mode=abort")  # whatever runs there now was left behind by somebody who is gone
        transfer.send(fleet, weights, label)
        emptied = fleet.call("reset_prefix_cache")
        if not all(answer["success"] for answer in emptied):
            raise CascadeError("a vLLM server could not forget cached prompts of older weights: something runs there")
        fleet.call("resume")

    def _label(self, version: int) -> str:
        return f"{self._name}/{version}"

    def _heard(self, event: Finished | GivenUp | AskedAgain | Broken) -> list[Rollout]:
        """Rollouts of one event: one or none."""
        if isinstance(event, Broken):
            self._broken = event.error
            raise event.error
        if isinstance(event, AskedAgain):
            self.asked_again += event.rollouts
            self._say(event.text)
            return []
        request = self._finished(event.ticket)
        if request is None:  # cancelled meanwhile
            return []
        if isinstance(event, GivenUp):
            self.given_up += 1
            return [Rollout(request.prompt_id, request.index, (), (), "", Stop.ABORT, self._version)]
        return [self._rollout(request, event)]

    def _rollout(self, request: Request, finished: Finished) -> Rollout:
        completion = finished.completion
        wrong = completion.versions - {self._label(self._version)}
        if wrong and self._version >= 0:  # before the first update nobody has labelled anything
            raise CascadeError(
                f"the vLLM server {finished.server} served weights {', '.join(sorted(wrong))}, the trainer expects "
                f"{self._label(self._version)}: somebody else loads weights into it, or it was restarted."
            )
        ids = tuple(completion.token_ids)
        stop = stop_of(completion.finish_reason, completion.stop_reason)
        logprobs = tuple(entry.logprob for entry in completion.logprobs.content)
        text = text_of(self._tokenizer, ids, stop)
        return Rollout(request.prompt_id, request.index, ids, logprobs, text, stop, self._version)


class LivingFleet:
    """All living servers at once, as ``weight_transfer.Fleet``; one that turns out dead is left out from then on."""

    def __init__(self, loop: RequestLoop, clients: Sequence[ServerClient], say: Callable[[str], None]) -> None:
        self._loop, self._clients, self._say = loop, clients, say

    @property
    def urls(self) -> list[str]:
        return [self._clients[server].url for server in self._loop.living()]

    def call(self, path: str, body: Any = None, method: str = "POST") -> list[Any]:
        """Each living server's answer (see ``Fleet``)."""
        return self._call(path, dict.fromkeys(self._loop.living(), body), method)

    def call_each(self, path: str, bodies: Sequence[Any]) -> list[Any]:
        return self._call(path, dict(zip(self._loop.living(), bodies, strict=True)), "POST")

    def _call(self, path: str, bodies: dict[int, Any], method: str) -> list[Any]:
        answers = self._loop.call(path, bodies, method, CONTROL_S)
        for server, answer in answers.items():
            if isinstance(answer, BaseException):
                self._failed(server, path, answer)
        return [answer for answer in answers.values() if not isinstance(answer, BaseException)]

    def _failed(self, server: int, path: str, error: BaseException) -> None:
        client = self._clients[server]
        others = [each for each in self._loop.living() if each != server]
        if others and self._loop.is_dead(server):
            self._say(f"the vLLM server {client.name} died; {len(others)} others go on")
            self._loop.keep(others)
            return
        what = f"the vLLM server {client.name} failed at /{path}"
        if isinstance(error, TimeoutError):
            what += f": no answer within {CONTROL_S:.0f} s"
        elif isinstance(error, Refused):
            what = f"{error}\nIs it in vLLM's development mode (VLLM_SERVER_DEV_MODE=1, --enable-scale-out)?"
        else:
            what += f": {error or type(error).__name__}"
        raise CascadeError(what) from error

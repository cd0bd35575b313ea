"""A teacher behind HTTP: a vLLM server that says how likely it finds given tokens (``prompt_logprobs``).

    rollout ends ──begin──► thread ──POST /v1/completions──► server, while other rollouts still generate
    fill ◄── log-probs of each rollout, those not begun yet asked for now

A request generates one token, which is thrown away: what counts is what the server says of its prompt.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy

from cascade_rl.training.packing import TrainingSequence
from cascade_rl.types import CascadeError

KEY_VARIABLE = "CASCADE_RL_TEACHER_KEY"
"""Environment variable with the servers' API key, where they want one."""
_WAIT_S = (0.5, 30.0)
"""Before the second try and, doubled each time, at most."""
_AGAIN = (408, 409, 425, 429)
"""Refusals that pass; all from 500 up do too."""

TokenIds = tuple[int, ...]


class ServerTeacher:
    """A ``Reference`` that is asked over HTTP. Thread-safe; close it at the end."""

    def __init__(
        self,
        url: str,
        *,
        concurrency: int = 64,
        tries: int = 6,
        timeout_s: float = 600.0,
        on_answer: Callable[[], object] = lambda: None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """``url``: of its OpenAI-compatible interface, ``http://host:port/v1``. ``on_answer``: called at each one.

        Raises CascadeError for what is no address.
        """
        import httpx

        if not url.startswith(("http://", "https://")):
            raise CascadeError(f"the address of a teacher starts with http:// or https://, unlike {url!r}")
        self.url = url.rstrip("/")
        key = os.environ.get(KEY_VARIABLE)
        self._client = httpx.Client(
            timeout=timeout_s,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        )
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="teacher")
        self._tries, self._sleep, self._on_answer = tries, sleep, on_answer
        self._model: str | None = None
        self._begun: dict[tuple[TokenIds, TokenIds], Future[numpy.ndarray]] = {}

    def check(self, encode: Callable[[str], list[int]], probes: Sequence[str], longest: int) -> None:
        """It serves a model that reads ``probes`` as the student does, with room for ``longest`` tokens.

        ``encode``: the student's tokenizer. Raises CascadeError with both sides shown.
        """
        served = self._served()
        there = served.get("max_model_len")
        if there is not None and longest + 1 > there:  # one more, since the request must generate a token
            raise CascadeError(
                f"the teacher at {self.url} takes {there} tokens (max_model_len), the longest rollout of this stage "
                f"with its prompt {longest}, and one more is generated: start the server with --max-model-len "
                f"{longest + 1}, or lower rollout.max_new_tokens"
            )
        root = self.url.removesuffix("/v1")
        for text in probes:
            body = {"model": served["id"], "prompt": text, "add_special_tokens": False}
            theirs, ours = self._post(f"{root}/tokenize", body).get("tokens"), encode(text)
            if theirs != ours:
                raise CascadeError(
                    f"the teacher at {self.url} ({served['id']}) has another tokenizer than the student:\n"
                    f"text:    {text!r}\nstudent: {ours}\nteacher: {theirs}\n"
                    "A teacher must be of the student's family, with its tokenizer files unchanged."
                )

    def begin(self, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> None:
        """Ask for a rollout's log-probs now; ``fill`` takes the answer."""
        key = tuple(prompt_ids), tuple(completion_ids)
        if key not in self._begun:
            self._begun[key] = self._threads.submit(self._ask, *key)

    def fill(self, sequences: Sequence[TrainingSequence]) -> list[TrainingSequence]:
        """See ``Reference``. Raises CascadeError when an answer cannot be had, or is not what was asked."""
        other = next((s.temperature for s in sequences if s.temperature != 1.0), None)
        if other is not None:
            raise CascadeError(
                f"a server's prompt_logprobs are those of temperature 1, the stage samples at {other:g}: give "
                f"the teacher at {self.url} as `model`, or set rollout.temperature to 1"
            )
        keys = [(tuple(s.prompt_ids.tolist()), tuple(s.completion_ids.tolist())) for s in sequences]
        for key in keys:
            self.begin(*key)
        try:
            answers = [self._begun[key].result() for key in keys]
        finally:
            for future in self._begun.values():  # of a step that was given up, or is about to be
                future.cancel()
            self._begun.clear()
        return [
            dataclasses.replace(sequence, reference_logprobs=answer)
            for sequence, answer in zip(sequences, answers, strict=True)
        ]

    def close(self) -> None:
        """Ask nothing any more; answers still awaited are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _served(self) -> Mapping[str, Any]:
        """What /models says of the first model."""
        answer = self._request("GET", f"{self.url}/models", None)
        try:
            served = answer["data"][0]
            self._model = served["id"]
        except (KeyError, IndexError, TypeError) as error:
            raise CascadeError(f"{self.url}/models names no model: {str(answer)[:300]}") from error
        return served

    def _ask(self, prompt_ids: TokenIds, completion_ids: TokenIds) -> numpy.ndarray:
        body = {
            "model": self._model or self._served()["id"],
            "prompt": [*prompt_ids, *completion_ids],
            "prompt_logprobs": 0,
            "max_tokens": 1,
            "temperature": 0.0,
        }
        answer = self._post(f"{self.url}/completions", body)
        try:
            entries = answer["choices"][0]["prompt_logprobs"][len(prompt_ids) :]
            # Keys are texts in JSON; beside the token itself there may be the likeliest one.
            values = [entry[str(token)]["logprob"] for entry, token in zip(entries, completion_ids, strict=True)]
            found = numpy.asarray(values, numpy.float32)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CascadeError(
                f"the teacher at {self.url} did not give a log-prob for each of the {len(completion_ids)} tokens it "
                f"was shown ({type(error).__name__}: {error}): it must be a vLLM server that takes token ids and "
                f"prompt_logprobs. It said: {str(answer)[:300]}"
            ) from error
        self._on_answer()
        return found

    def _post(self, address: str, body: Mapping[str, Any]) -> Any:
        return self._request("POST", address, body)

    def _request(self, method: str, address: str, body: Mapping[str, Any] | None) -> Any:
        """The JSON answer. Raises CascadeError after the last try, or at once when refused for good."""
        import httpx

        wait, last = _WAIT_S[0], ""
        for attempt in range(self._tries):
            if attempt:
                self._sleep(wait)
                wait = min(2 * wait, _WAIT_S[1])
            try:
                answer = self._client.request(method, address, json=body)
            except httpx.HTTPError as error:
                last = f"{type(error).__name__} {error}".strip()
                continue
            if answer.status_code in _AGAIN or answer.status_code >= 500:
                last = f"status {answer.status_code}: {answer.text[:300]}"
                continue
            if answer.status_code != 200:
                raise CascadeError(
                    f"the teacher's server refused {address} with status {answer.status_code}: {answer.text[:300]}"
                )
            try:
                return answer.json()
            except ValueError:
                last = f"not JSON: {answer.text[:300]}"
        raise CascadeError(f"the teacher's server gave no answer at {address} in {self._tries} tries; last: {last}")

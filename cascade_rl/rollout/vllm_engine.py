"""vLLM inside the trainer's own process: one engine per rank, weights streamed in, rollouts out as they finish.

        trainer rank ──load_weights──► vLLM worker (same process, same device)
             ▲                              │ step(), step(), ...
             └───────── rollouts ◄──────────┘ each as soon as it ends

Nothing here runs in the background: the engine works while it is being polled.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade_rl.processes import collector_paused
from cascade_rl.recipe import EngineConfig, LoraConfig
from cascade_rl.rollout.adapters import Adapter, engine_arguments
from cascade_rl.rollout.device_memory import DeviceMemory
from cascade_rl.rollout.engine import EngineBase, Request
from cascade_rl.rollout.kv_cache import CPU_CACHE_VARIABLE, cpu_cache_bytes
from cascade_rl.rollout.sampling import TIES, kept_of, sampling_fields, stop_of, text_of
from cascade_rl.types import CascadeError, Rollout


def prepare_environment(*, cpu: bool, kv_cache_gib: int | None = None) -> None:
    """Set what vLLM reads from the environment; call before vllm is imported. A user's own values win.

    ``kv_cache_gib``: the CPU engine's key-value cache, for a caller that does not pass ``kv_cache_memory_bytes``.
    """
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the engine core stays in this process
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_DO_NOT_TRACK", "1")
    if cpu:
        if kv_cache_gib is not None:
            os.environ.setdefault(CPU_CACHE_VARIABLE, str(kv_cache_gib))
        # vLLM would pin threads to cores: the trainer in this process and other ranks need them too.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        _do_not_compile()


def _do_not_compile() -> None:
    """Without this the first call compiles for 26 s, and needs a C++ compiler, which a laptop may lack."""
    import torch._dynamo.config

    # torch reads the variable when it is imported, and in an RL stage the trainer has imported it before.
    torch._dynamo.config.disable = os.environ.setdefault("TORCH_COMPILE_DISABLE", "1") == "1"


class VllmEngine(EngineBase):
    """The in-process implementation of ``Engine``.

    ``renormalised`` sampling (top-p or top-k below all) makes vLLM's processed log-probs sum to one over the kept
    tokens only, which the trainer's do not; for such stages raw log-probs (temperature 1, full vocabulary) are
    reported instead, so that both sides can be compared on one support. ``logprob_temperature`` says which it is.
    With ``kept``, requests with top-k bring processed log-probs and the ids that were kept, over which the trainer then
    renormalises too.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        config: EngineConfig,
        *,
        dtype: str,
        cpu: bool,
        world_size: int,
        max_model_len: int,
        renormalised: bool,
        temperature: float,
        tokenizer: Any,
        lora: LoraConfig | None = None,
        kept: int = 0,
    ) -> None:
        """``lora``: what is loaded are adapters of this kind, on the weights of ``checkpoint``. ``kept``: the largest
        top-k of requests whose rollouts are to say which tokens were kept; 0 where none is to."""
        super().__init__()
        prepare_environment(cpu=cpu)
        with collector_paused():
            from vllm import LLM

        cache = None  # on a GPU, what gpu_memory_utilization leaves
        if cpu and CPU_CACHE_VARIABLE not in os.environ:
            cache = cpu_cache_bytes(checkpoint, config, max_model_len, dtype)
        self._can_sleep = not cpu  # on CPU vLLM ignores sleep and frees nothing
        self._asleep = False
        self.memory = DeviceMemory()
        raw = renormalised and not kept
        self.logprob_temperature = 1.0 if raw else temperature
        try:
            self._llm = LLM(
                model=str(checkpoint),
                dtype=dtype,  # vLLM's own default would run a float32 policy in half precision
                max_model_len=max_model_len,
                max_num_seqs=config.max_num_seqs,
                max_num_batched_tokens=max(config.max_batched_tokens, max_model_len),
                enforce_eager=cpu or config.enforce_eager,
                gpu_memory_utilization=config.gpu_memory_utilization,
                kv_cache_memory_bytes=cache,
                enable_sleep_mode=self._can_sleep,
                enable_prefix_caching=True,
                # A prompt cut in two is sampled once too often, and vLLM then winds the request's random numbers
                # back. CPU generators cannot be: the engine would die of the first long batch of prompts.
                enable_chunked_prefill=not cpu,
                logprobs_mode="raw_logprobs" if raw else "processed_logprobs",
                max_logprobs=max(20, kept + TIES),
                distributed_executor_backend="external_launcher" if world_size > 1 else None,
                generation_config="vllm",  # sampling comes from the recipe alone
                disable_log_stats=True,
                seed=0,
                **engine_arguments(lora),
            )
        except Exception as error:
            raise CascadeError(
                f"vLLM could not start from {checkpoint}: {error}\n"
                "If memory ran out, lower `engine.gpu_memory_utilization` or `engine.max_num_seqs` of the stage."
            ) from error
        self._adapter = Adapter(self._llm.llm_engine, lora) if lora else None
        # The stage's own tokenizer, not the one vLLM finds beside the weights: a base model's end-of-turn token is
        # set by our template, and a completion must end where training says it ends.
        self._tokenizer, self._kept = tokenizer, kept
        self._vocabulary = self._llm.llm_engine.model_config.get_vocab_size()
        self._eos = tokenizer.eos_token_id

    def submit(self, request: Request) -> None:
        """Add a request to the running batch (see ``Engine``)."""
        identifier = str(self._enlist(request))
        prompt = {"prompt_token_ids": list(request.prompt_token_ids)}
        with self._failing():
            adapter = self._adapter.request if self._adapter else None
            self._llm.llm_engine.add_request(identifier, prompt, self._params(request), lora_request=adapter)

    def cancel(self, prompt_id: str, index: int) -> None:
        """Take a request out of the running batch (see ``Engine``)."""
        number = self._strike((prompt_id, index))
        if number is not None:
            with self._failing():
                self._llm.llm_engine.abort_request([str(number)])

    def poll(self, timeout_s: float = 0.0) -> list[Rollout]:
        """Decode, one token per request at a time, until something finishes or ``timeout_s`` is over.

        Raises CascadeError when the engine dies (see ``Engine``).
        """
        deadline = time.monotonic() + timeout_s
        finished: list[Rollout] = []
        while self._requests and not finished:
            with self._failing():
                outputs = self._llm.llm_engine.step()
            finished = [
                self._rollout(request, output.outputs[0])
                for output in outputs
                if output.finished and (request := self._finished(int(output.request_id)))
            ]
            if time.monotonic() >= deadline:
                break
        return finished

    def longest_running(self) -> int | None:
        """Tokens that the longest unfinished rollout has so far; None where none is running."""
        states = self._llm.llm_engine.output_processor.request_states.values()
        return max((state.detokenizer.num_output_tokens() for state in states if state.detokenizer), default=None)

    def clear(self) -> None:
        """Cancel whatever is in flight; an engine that is dead has nothing."""
        lingering = [str(self._strike(key)) for key in list(self._numbers)]
        with contextlib.suppress(Exception):
            if lingering:
                self._llm.llm_engine.abort_request(lingering)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise CascadeError(
                f"the vLLM engine failed with {self.in_flight} rollouts unfinished: {type(error).__name__}: {error}\n"
                "The stage's last saved state is intact; start the run again to go on from it."
            ) from error

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Stream weights in (names as in the checkpoint, or in an adapter's) and serve them as ``version``; wakes a
        sleeping engine."""
        if self._requests:
            raise RuntimeError(f"{self.in_flight} rollouts are in flight: their tokens would be of two versions")
        if self._asleep:
            torch.cuda.empty_cache()  # what torch keeps in reserve is in the way of the engine
            self._llm.wake_up(tags=["weights"])  # the key-value cache takes its room last
            self.memory.note("wake")
        if self._adapter:
            self._adapter.load(weights, version)
        else:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        if self._asleep:
            self._llm.wake_up(tags=["kv_cache"])
            self._asleep = False
        if not self._llm.reset_prefix_cache():
            raise CascadeError("vLLM could not forget the cached prompts of older weights: something still uses them")
        self._version = version
        self.memory.note("load")

    def sleep(self) -> None:
        """Free weights and KV memory while the trainer works (GPU only); ``load_weights`` wakes."""
        if self._can_sleep and not self._asleep:
            # Level 2: stale weights are dropped, not copied to the host. The base of an adapter never is stale.
            self._llm.sleep(level=1 if self._adapter else 2)
            self._asleep = True
            self.memory.note("sleep")

    def close(self) -> None:
        """Shut the engine down."""
        del self._llm

    def _params(self, request: Request):
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        fields = sampling_fields(request.sampling, request.seed, self._eos)
        if self._says_kept(request):
            fields["logprobs"] = min(request.sampling.top_k + TIES, self._vocabulary)
        return SamplingParams(
            **fields,
            flat_logprobs=True,  # a few lists per rollout instead of two objects per token
            output_kind=RequestOutputKind.FINAL_ONLY,  # not a copy of all tokens so far with every new one
            skip_clone=True,  # made for this request alone
        )

    def _rollout(self, request: Request, completion) -> Rollout:
        ids = tuple(completion.token_ids)
        logprobs, kept = tuple(completion.logprobs.logprobs), None
        if self._says_kept(request):
            logprobs, kept = kept_of(completion.logprobs.token_ids, logprobs, len(ids))
        if len(logprobs) != len(ids):
            raise CascadeError(f"vLLM returned {len(logprobs)} log-probs for {len(ids)} tokens of a rollout")
        stop = stop_of(completion.finish_reason, completion.stop_reason)
        text = text_of(self._tokenizer, ids, stop)
        return Rollout(request.prompt_id, request.index, ids, logprobs, text, stop, self._version, kept)

    def _says_kept(self, request: Request) -> bool:
        # A benchmark may sample with a larger top-k than the stage; nothing is trained on what it generates.
        return 0 < request.sampling.top_k <= self._kept

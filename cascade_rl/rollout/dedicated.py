"""``placement: dedicated``: servers are started or found, and every rank gets an engine that talks to all of them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cascade_rl.rollout.request_loop import RequestLoop
from cascade_rl.rollout.server_client import ServerClient
from cascade_rl.rollout.server_engine import SPARE_SLOTS, LivingFleet, ServerEngine
from cascade_rl.rollout.server_process import Served, ServerProcess, spare_devices, start_servers
from cascade_rl.rollout.weight_transfer import FileTransfer, NcclTransfer, WeightTransfer, transfer_folder
from cascade_rl.types import CascadeError


@dataclass(frozen=True)
class ServedRank:
    """A rank among the ranks, and what it may use of the disk."""

    rank: int
    world_size: int
    ranks_here: int
    """Ranks on this host."""
    gather: Callable[[Any], list[Any]]
    """What every rank hands to it, in rank order."""
    say: Callable[[str], None]
    logs: Path
    shared: Path
    """A folder that servers on other hosts see as well."""


def transfer_of(wanted: str, *, cpu: bool) -> str:
    """``auto`` spelt out."""
    if wanted == "auto":
        return "files" if cpu else "nccl"
    if wanted == "nccl" and cpu:
        raise CascadeError("`engine.weight_transfer: nccl` needs GPUs; leave it at auto, or use files")
    return wanted


def open_server_engine(served: Served, here: ServedRank, *, tokenizer: Any, temperature: float) -> ServerEngine:
    """This rank's engine; the main rank starts the servers. A collective call.

    ``served.transfer`` must be spelt out. Raises CascadeError on every rank when a server does not start or answer.
    """
    config = served.config
    found: tuple[list[str], list[str], str] = ([], [], "")
    processes: list[ServerProcess] = []
    trouble: str | None = None
    if here.rank == 0:
        try:
            processes = [] if config.urls else _start(served, here)
            found = (
                config.urls or [process.url for process in processes],
                [str(process.log) for process in processes] or [""] * len(config.urls),
                uuid.uuid4().hex[:8],
            )
        except CascadeError as error:
            trouble = str(error)
    (urls, logs, name), trouble = here.gather((found, trouble))[0]
    if trouble:
        raise CascadeError(trouble)
    clients = [ServerClient(url, log) for url, log in zip(urls, logs, strict=True)]
    loop = RequestLoop(
        clients,
        eos=tokenizer.eos_token_id,
        slots=max(1, round(SPARE_SLOTS * config.max_num_seqs / here.world_size)),
        first=here.rank % len(clients),
        timeout_s=config.rollout_timeout_s,
        attempts=config.rollout_attempts,
    )
    if config.urls:
        _refuse_short_contexts(LivingFleet(loop, clients, here.say), served.max_model_len)
    return ServerEngine(
        loop,
        clients,
        transfer=_transfer(served, urls, here.shared) if here.rank == 0 else None,
        name=name,
        tokenizer=tokenizer,
        logprob_temperature=1.0 if served.renormalised else temperature,
        gather=here.gather,
        say=here.say,
        processes=processes,
    )


def _start(served: Served, here: ServedRank) -> list[ServerProcess]:
    if here.world_size > here.ranks_here:
        raise CascadeError(
            "servers that a stage starts listen on their own host alone, and this stage has ranks on several. Start "
            "them yourself (python -m vllm.entrypoints.openai.api_server --enable-scale-out ..., with "
            "VLLM_SERVER_DEV_MODE=1, in a network you trust) and name them in `engine.urls`."
        )
    count = served.config.servers
    devices: Sequence[str | None] = [None] * count
    if not served.cpu:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = spare_devices(count, here.ranks_here, visible, torch.cuda.device_count())
    here.say(f"starting {count} vLLM server{'s' if count > 1 else ''}; logs in {here.logs}")
    return start_servers(served, devices, here.logs, here.say)


def _transfer(served: Served, urls: Sequence[str], shared: Path) -> WeightTransfer:
    dtype = getattr(torch, served.dtype)
    size = served.config.sync_bucket_mib * 2**20
    if served.transfer == "nccl":
        return NcclTransfer(dtype, size)
    return FileTransfer(transfer_folder(urls, shared, checkpoint_bytes(served.checkpoint)), dtype, size)


def checkpoint_bytes(checkpoint: str) -> int:
    """Room that its weights need at most: float32 of what may be stored in half precision."""
    folder = Path(checkpoint)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(checkpoint, local_files_only=True))  # the policy has loaded it before
    return 2 * sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _refuse_short_contexts(fleet: LivingFleet, needed: int) -> None:
    """Servers that somebody else started must take the stage's longest prompt and completion."""
    for url, models in zip(fleet.urls, fleet.call("v1/models", method="GET"), strict=True):
        length = models["data"][0]["max_model_len"]
        if length < needed:
            raise CascadeError(
                f"the vLLM server {url} takes {length} tokens, and this stage's longest prompt and completion need "
                f"{needed}: start it with --max-model-len {needed}"
            )

"""How a trainer's weights reach vLLM servers: through files both see, or from device to device.

Both are driven by the main rank alone, with ``Fleet`` for what is said to the servers::

    pause (what is in flight is dropped) ─► weights, bucket by bucket ─► new version label ─► empty caches ─► resume
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import socket
import tempfile
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cascade_rl.types import CascadeError

Weights = Iterable[tuple[str, Tensor]]
Bucket = list[tuple[str, Tensor]]
PREFIX = ".cascade-rl-weights-"
"""Of the names of ``FileTransfer``'s folders."""


class Fleet(Protocol):
    """The servers, spoken to all at once. Raises CascadeError when one of them fails at it."""

    @property
    def urls(self) -> Sequence[str]: ...

    def call(self, path: str, body: Any = None, method: str = "POST") -> list[Any]:
        """Each server's answer."""
        ...

    def call_each(self, path: str, bodies: Sequence[Any]) -> list[Any]:
        """As ``call``, with a body of its own for each server."""
        ...


class WeightTransfer(Protocol):
    def send(self, fleet: Fleet, weights: Weights, label: str) -> None:
        """Make all servers serve ``weights`` under ``label``. Called between pause and resume."""
        ...

    def close(self) -> None: ...


def buckets(weights: Weights, size: int) -> Iterator[Bucket]:
    """Cut a stream of weights into lists of at most ``size`` bytes; a larger weight has a list to itself."""
    bucket: Bucket = []
    filled = 0
    for name, weight in weights:
        if bucket and filled + weight.nbytes > size:
            yield bucket
            bucket, filled = [], 0
        bucket.append((name, weight))
        filled += weight.nbytes
    if bucket:
        yield bucket


class FileTransfer:
    """A folder of safetensors per version, which the servers read and which is then removed.

    ``folder``: seen by all servers; memory-backed where they are on this host. It needs no configuration or tokenizer
    files: vLLM reads the weights of it alone.
    """

    def __init__(self, folder: Path, dtype: torch.dtype, bucket_bytes: int) -> None:
        self._folder, self._dtype, self._bucket_bytes = folder, dtype, bucket_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._claim = os.open(folder, os.O_RDONLY)
        fcntl.flock(self._claim, fcntl.LOCK_EX)  # as long as this process lives: see ``sweep``

    def send(self, fleet: Fleet, weights: Weights, label: str) -> None:
        """Write, publish by a rename, have it read, remove. Raises CascadeError when it cannot be written or read."""
        place = self._folder / label.replace("/", "-")
        try:
            self._write(weights, place)
            fleet.call("collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(place)}})
        finally:
            shutil.rmtree(place, ignore_errors=True)
        fleet.call("update_weight_version", {"new_version": label})

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._claim)

    def _write(self, weights: Weights, place: Path) -> None:
        from safetensors.torch import save_file

        unfinished = place.with_name(f".{place.name}.tmp")
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            for index, bucket in enumerate(buckets(weights, self._bucket_bytes)):
                save_file(self._unshared(bucket), unfinished / f"model-{index:05d}.safetensors")
            os.replace(unfinished, place)
        except OSError as error:
            raise CascadeError(
                f"weights for the vLLM servers could not be written to {self._folder}: {error}. It must hold the model "
                f"once ({shutil.disk_usage(self._folder).free / 2**30:.1f} GiB are free)."
            ) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _unshared(self, bucket: Bucket) -> dict[str, Tensor]:
        """On the host, in the engine's precision; a tied head gets memory of its own, else it is not written."""
        tensors: dict[str, Tensor] = {}
        places: set[int] = set()
        for name, weight in bucket:
            tensor = weight.detach().to("cpu", self._dtype).contiguous()
            tensors[name] = tensor.clone() if tensor.data_ptr() in places else tensor
            places.add(tensor.data_ptr())
        return tensors


def transfer_folder(urls: Sequence[str], shared: Path, need_bytes: int, memory: Path = Path("/dev/shm")) -> Path:
    """A fresh folder for ``FileTransfer``: in memory when all servers are on this host and it has room for the model,
    else below ``shared``, which other hosts must see too."""
    here = all(urllib.parse.urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1") for url in urls)
    shared.mkdir(parents=True, exist_ok=True)
    for parent in (memory, shared):
        sweep(parent)
    if here and memory.is_dir() and shutil.disk_usage(memory).free > need_bytes + 2**30:
        return Path(tempfile.mkdtemp(prefix=PREFIX, dir=memory))
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=shared))


def sweep(parent: Path, older_than_s: float = 60.0) -> None:
    """Remove folders of ``FileTransfer`` whose process was killed: they may hold a model in memory."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime < older_than_s:
                continue  # perhaps not claimed yet
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(handle)


class NcclTransfer:
    """vLLM's own weight transfer over NCCL: this process is rank 0 of a group of its own, the servers' workers follow.

    Not run on a GPU yet; its conversation with vLLM's trainer side and with the servers is tested.
    """

    def __init__(self, dtype: torch.dtype, bucket_bytes: int) -> None:
        self._dtype, self._bucket_bytes = dtype, bucket_bytes
        self._sender: Any = None
        self._source: Any = None
        self._urls: list[str] = []

    def send(self, fleet: Fleet, weights: Weights, label: str) -> None:
        """Broadcast the weights bucket by bucket, each as one update of the servers' open update session."""
        if self._urls != list(fleet.urls):  # at first, and when a server has died
            self._open(fleet)
        fleet.call("start_weight_update")
        for bucket in buckets(weights, self._bucket_bytes):
            self._source.bucket = [(name, weight.detach().to(self._dtype).contiguous()) for name, weight in bucket]
            self._sender.send_weights()
        self._source.bucket = []
        fleet.call("finish_weight_update", {"weight_version": label})

    def close(self) -> None:
        if self._sender is not None:
            self._sender.shutdown()
            self._sender = None

    def _open(self, fleet: Fleet) -> None:
        from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        sizes = [answer["world_size"] for answer in fleet.call("get_world_size", method="GET")]
        self.close()
        self._urls = list(fleet.urls)
        self._source = _bucket_source()
        host = address_towards(fleet.urls[0])
        with contextlib.closing(socket.socket()) as probe:
            probe.bind((host, 0))
            port = probe.getsockname()[1]
        self._sender = WeightTransferTrainerFactory.trainer_init(
            NCCLTrainerInitInfo(
                master_address=host,
                master_port=port,
                world_size=1 + sum(sizes),
                packed_buffer_size_bytes=self._bucket_bytes,
                rank=0,
            ),
            client=FleetClient(fleet, sizes),
            source=self._source,
        )


class FleetClient:
    """vLLM's ``VLLMWeightSyncClient`` for several servers at once.

    A sync is one update session of many buckets, so the session is opened and closed by ``NcclTransfer.send``, not
    here, where it would be once per bucket.
    """

    def __init__(self, fleet: Fleet, world_sizes: Sequence[int]) -> None:
        self._fleet = fleet
        self._offsets = list(itertools.accumulate(world_sizes[:-1], initial=1))

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        bodies = [{"init_info": {**init_info, "rank_offset": offset}} for offset in self._offsets]
        self._fleet.call_each("init_weight_transfer_engine", bodies)

    def start_weight_update(self) -> None: ...

    def update_weights(self, update_info: Any) -> None:
        self._fleet.call("update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None: ...


def _bucket_source() -> Any:
    """A vLLM ``WeightSource`` over whatever its ``bucket`` holds now."""
    from vllm.distributed.weight_transfer import ParamMeta, WeightSource

    class BucketSource(WeightSource):
        def __init__(self) -> None:
            self.bucket: Bucket = []

        def metadata(self) -> list[Any]:
            return [ParamMeta(name, weight.dtype, tuple(weight.shape)) for name, weight in self.bucket]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            return iter(self.bucket)

    return BucketSource()


def address_towards(url: str) -> str:
    """This host's own address as a server at ``url`` can reach it."""
    parts = urllib.parse.urlsplit(url)
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect((parts.hostname or "127.0.0.1", parts.port or 80))  # sends nothing
        return probe.getsockname()[0]

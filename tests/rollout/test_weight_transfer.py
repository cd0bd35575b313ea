import itertools
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from cascade_rl.rollout.weight_transfer import (
    PREFIX,
    FileTransfer,
    FleetClient,
    NcclTransfer,
    address_towards,
    buckets,
    sweep,
    transfer_folder,
)
from cascade_rl.types import CascadeError


class Fleet:
    """What is said to two servers, in order; ``reads``: what they find in the folder they are shown."""

    urls = ("http://127.0.0.1:1", "http://127.0.0.1:2")

    def __init__(self):
        self.calls, self.reads = [], []

    def call(self, path, body=None, method="POST"):
        self.calls.append((path, body))
        if path == "get_world_size":
            return [{"world_size": 2}, {"world_size": 3}]
        if path == "collective_rpc":
            folder = body["kwargs"]["weights_path"]
            self.reads.append({name: load_file(os.path.join(folder, name)) for name in sorted(os.listdir(folder))})
        return [{}, {}]

    def call_each(self, path, bodies):
        self.calls.append((path, list(bodies)))
        return [{}, {}]


@given(st.lists(st.integers(1, 30), max_size=20), st.integers(4, 80))
def test_buckets_hold_everything_in_order_and_keep_to_their_size(sizes, limit):
    weights = [(f"w{i}", torch.zeros(size)) for i, size in enumerate(sizes)]
    cut = list(buckets(weights, limit))
    assert [name for bucket in cut for name, _ in bucket] == [name for name, _ in weights]
    for bucket in cut:
        assert sum(weight.nbytes for _, weight in bucket) <= limit or len(bucket) == 1
    for one, other in itertools.pairwise(cut):  # none is cut too early
        assert sum(weight.nbytes for _, weight in one) + other[0][1].nbytes > limit


def test_files_hold_the_weights_in_the_engines_precision_tied_head_included_and_are_gone_afterwards(tmp_path):
    embedding, inner = torch.arange(6.0).reshape(3, 2), torch.arange(6.0).reshape(2, 3) / 3
    fleet, transfer = Fleet(), FileTransfer(tmp_path / "w", torch.bfloat16, 1000)
    transfer.send(fleet, [("embed", embedding), ("inner", inner.T), ("lm_head", embedding)], "run/3")
    (found,) = fleet.reads
    (tensors,) = found.values()
    assert set(tensors) == {"embed", "inner", "lm_head"}
    assert all(tensor.dtype == torch.bfloat16 for tensor in tensors.values())
    assert torch.equal(tensors["lm_head"], embedding.bfloat16())
    assert torch.equal(tensors["inner"], inner.T.bfloat16())
    assert [path for path, _ in fleet.calls] == ["collective_rpc", "update_weight_version"]
    assert fleet.calls[1][1] == {"new_version": "run/3"}
    assert list((tmp_path / "w").iterdir()) == []
    transfer.close()
    assert not (tmp_path / "w").exists()


def test_files_are_cut_into_buckets(tmp_path):
    fleet = Fleet()
    FileTransfer(tmp_path, torch.float32, 16).send(
        fleet, [(f"w{i}", torch.full((3,), float(i))) for i in range(3)], "a/1"
    )
    assert [sorted(tensors) for tensors in fleet.reads[0].values()] == [["w0"], ["w1"], ["w2"]]
    assert list(fleet.reads[0]) == [f"model-0000{i}.safetensors" for i in range(3)]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def failing():
        yield "a", torch.zeros(8)
        assert not (tmp_path / "a-1").exists()  # nothing to see yet
        yield "b", torch.zeros(8)
        raise OSError(28, "No space left on device")

    fleet = Fleet()
    with pytest.raises(CascadeError, match=f"{tmp_path}.*No space left"):
        FileTransfer(tmp_path, torch.float32, 32).send(fleet, failing(), "a/1")
    assert fleet.calls == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_memory_serves_this_host_alone(tmp_path):
    memory, shared = tmp_path / "memory", tmp_path / "shared"
    memory.mkdir()
    here = ["http://127.0.0.1:1", "http://localhost:2"]
    assert transfer_folder(here, shared, 100, memory).parent == memory
    assert transfer_folder([*here, "http://node2:1"], shared, 100, memory).parent == shared
    assert transfer_folder(here, shared, 2**60, memory).parent == shared


def test_folders_of_killed_processes_are_swept_and_no_others(tmp_path):
    left_behind, fresh, elsewhere = tmp_path / f"{PREFIX}a", tmp_path / f"{PREFIX}b", tmp_path / "other"
    for folder in (left_behind, fresh, elsewhere):
        folder.mkdir()
        (folder / "model.safetensors").touch()
    living = FileTransfer(tmp_path / f"{PREFIX}c", torch.float32, 100)
    for folder in (left_behind, living._folder, elsewhere):
        os.utime(folder, (0, 0))
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([fresh, living._folder, elsewhere])
    living.close()


def test_workers_of_several_servers_have_places_of_their_own_in_the_group():
    fleet = Fleet()
    client = FleetClient(fleet, [2, 3, 1])
    client.init_weight_transfer_engine({"master_port": 5, "rank_offset": 1})
    ((path, bodies),) = fleet.calls
    assert path == "init_weight_transfer_engine"
    assert bodies == [{"init_info": {"master_port": 5, "rank_offset": offset}} for offset in (1, 3, 6)]


def test_the_address_towards_a_server_on_this_host_is_the_loopback():
    assert address_towards("http://127.0.0.1:8000") == "127.0.0.1"


@pytest.mark.slow
def test_nccl_sends_buckets_within_one_update_session(monkeypatch):
    """vLLM's own trainer side, NCCL itself replaced: what it broadcasts is what it announced, in order."""
    pytest.importorskip("vllm")
    from vllm.distributed.weight_transfer import nccl_engine

    opened, sent = [], []
    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda info: opened.append(info) or "group")
    monkeypatch.setattr(
        nccl_engine, "packed_nccl_broadcast_producer",
        lambda iterator, group, src, post_iter_func, **sizes: sent.append([(n, post_iter_func((n, w))) for n, w in iterator]),
    )  # fmt: skip
    fleet, transfer = Fleet(), NcclTransfer(torch.bfloat16, 16)
    weights = [(f"w{i}", torch.full((3,), float(i))) for i in range(3)]
    transfer.send(fleet, weights, "run/4")
    transfer.send(fleet, weights[:1], "run/5")

    (info,) = opened
    assert (info.world_size, info.master_address, info.rank) == (6, "127.0.0.1", 0)
    paths = [path for path, _ in fleet.calls]
    assert paths == [
        "get_world_size", "init_weight_transfer_engine",
        "start_weight_update", "update_weights", "update_weights", "update_weights", "finish_weight_update",
        "start_weight_update", "update_weights", "finish_weight_update",
    ]  # fmt: skip
    announced = [body["update_info"] for path, body in fleet.calls if path == "update_weights"]
    assert announced[1] == {"names": ["w1"], "dtype_names": ["bfloat16"], "shapes": [[3]]}
    assert [[name for name, _ in bucket] for bucket in sent] == [["w0"], ["w1"], ["w2"], ["w0"]]
    assert torch.equal(sent[2][0][1], torch.full((3,), 2.0, dtype=torch.bfloat16))
    assert [body for path, body in fleet.calls if path == "finish_weight_update"] == [
        {"weight_version": "run/4"}, {"weight_version": "run/5"},
    ]  # fmt: skip
    inits = next(body for path, body in fleet.calls if path == "init_weight_transfer_engine")
    assert [body["init_info"]["rank_offset"] for body in inits] == [1, 3]
    assert inits[0]["init_info"]["world_size"] == 6

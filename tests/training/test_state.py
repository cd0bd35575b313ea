"""Files that are hashed while they are written, and copies in the host's memory that training does not touch."""

import errno
from pathlib import Path

import pytest
import torch

from cascade_rl.models import tiny_qwen3
from cascade_rl.training import host_memory, portable
from cascade_rl.training.host_memory import HostMemory
from cascade_rl.training.state import HashedFile, hashed_file, record_of
from tests.training.sharded import policy_of, train
from tests.training.test_update import ALONE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("state")
    tiny_qwen3.build(folder / "model", seed=3, hidden_size=64, layers=2, intermediate_size=96)
    return folder


def test_a_file_is_hashed_as_it_is_written(tmp_path):
    with hashed_file(tmp_path / "a.pt") as file:
        torch.save({"x": torch.arange(3_000_000)}, file)  # 24 MB: several blocks
    assert file.record == record_of(tmp_path / "a.pt")
    assert file.record["size"] == (tmp_path / "a.pt").stat().st_size > 24_000_000
    assert torch.equal(torch.load(tmp_path / "a.pt")["x"], torch.arange(3_000_000))


def test_a_full_disk_is_an_os_error_whatever_torch_says(tmp_path, monkeypatch):
    write = HashedFile.write

    def full(self, data):
        if len(data) > 1000:
            self.fault = OSError(errno.ENOSPC, "No space left on device")
            raise self.fault
        return write(self, data)

    monkeypatch.setattr(HashedFile, "write", full)
    with pytest.raises(OSError, match="No space left"):
        portable.write(tmp_path / "a.pt", {"w": {"weight": torch.zeros(10_000)}})
    assert not (tmp_path / "a.pt").exists(), "its bytes are wanted elsewhere"


@pytest.mark.parametrize("how", [{}, {"offload_optimizer": True}])
def test_a_copy_is_what_was_there_though_training_goes_on(folder, tmp_path, how):
    """With an optimizer on the CPU too: its next step changes the very numbers that are being written."""
    policy = policy_of(folder, ALONE, strategy="ddp", **how)
    train(policy, 2)
    for name in ("at once", "later"):
        (tmp_path / name).mkdir()
    policy.save(tmp_path / "at once")
    write = policy.part(HostMemory())
    train(policy, 1, 2)
    write(tmp_path / "later")
    (at_once,), (later,) = ([torch.load(f) for f in (tmp_path / n).iterdir()] for n in ("at once", "later"))
    assert same(at_once, later)
    assert not same(at_once, portable.entries_of(policy.sharding.pieces(), policy.optimizer)), "it did train"


def same(one, other):
    """Whether two sets of entries are equal bit for bit."""
    return one.keys() == other.keys() and all(
        set(entry) == set(other[name])
        and all(
            torch.equal(value, other[name][key]) if isinstance(value, torch.Tensor) else value == other[name][key]
            for key, value in entry.items()
        )
        for name, entry in one.items()
    )


def test_a_copy_takes_twelve_bytes_per_parameter_in_one_place(folder):
    policy, memory = policy_of(folder, ALONE, strategy="ddp"), HostMemory()
    train(policy, 1)
    assert policy.state_bytes == 12 * policy.trained_weights
    entries = portable.entries_of(policy.sharding.pieces(), policy.optimizer)
    places = {next(iter(memory.copy(entries).values()))["weight"].data_ptr() for _ in range(3)}
    assert (memory.size, len(places)) == (12 * policy.trained_weights, 1)


def test_numbers_that_would_be_rounded_are_refused():
    with pytest.raises(TypeError, match="float64"):
        HostMemory().copy({"w": {"weight": torch.zeros(2, dtype=torch.float64)}})


def test_a_container_may_use_less_than_its_host_has(tmp_path: Path):
    for name, text in (("max", "1000"), ("current", "700"), ("stat", "anon 500\ninactive_file 150\n")):
        (tmp_path / f"memory.{name}").write_text(text + "\n")
    assert host_memory._of_the_container(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert host_memory._of_the_container(tmp_path) is None
    assert host_memory._of_the_container(tmp_path / "nothing") is None

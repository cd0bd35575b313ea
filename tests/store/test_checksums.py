"""A result that is not what was written is noticed, whatever happened to it."""

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest

from cascade_rl.store import StageFolder
from cascade_rl.store.checksums import faults, missing_files, publishing_checkpoint, verify
from cascade_rl.types import CascadeError

WEIGHTS = bytes(range(256)) * 64


@pytest.fixture
def place(tmp_path):
    place = StageFolder(tmp_path / "a-1")
    place.adapter.mkdir(parents=True)
    (place.adapter / "adapter.safetensors").write_bytes(b"adapter")
    place.optimizer.write_bytes(b"moments")
    with publishing_checkpoint(place) as folder:
        (folder / "model.safetensors").write_bytes(WEIGHTS)
        (folder / "config.json").write_text("{}")
        (folder / "empty").touch()
    return place


def test_what_was_written_passes(place):
    noted = json.loads(place.checksums.read_text())
    assert noted["checkpoint/model.safetensors"] == {
        "size": len(WEIGHTS),
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
    }
    assert set(noted) == {
        "checkpoint/model.safetensors", "checkpoint/config.json", "checkpoint/empty",
        "adapter/adapter.safetensors", "optimizer.pt",
    }  # fmt: skip
    assert faults(place, hashes=True) == faults(place, hashes=False) == []
    verify(place)


@pytest.mark.parametrize("at", [0, len(WEIGHTS) // 2, len(WEIGHTS) - 1])
def test_one_flipped_bit_is_found_by_the_hash(place, at):
    content = bytearray(WEIGHTS)
    content[at] ^= 1
    (place.checkpoint / "model.safetensors").write_bytes(content)
    assert faults(place, hashes=False) == []
    (line,) = faults(place, hashes=True)
    assert "model.safetensors" in line
    with pytest.raises(CascadeError, match=r"model\.safetensors") as caught:
        verify(place)
    assert "--from a" in str(caught.value)


@pytest.mark.parametrize("content", [WEIGHTS[:-1], b"", WEIGHTS + b"x"])
def test_another_size_is_found_without_reading(place, content):
    (place.checkpoint / "model.safetensors").write_bytes(content)
    for hashes in (False, True):
        (line,) = faults(place, hashes=hashes)
        assert f"{len(content)} bytes" in line
        assert str(len(WEIGHTS)) in line


def test_missing_files_are_named(place):
    (place.checkpoint / "config.json").unlink()
    (place.checkpoint / "model.safetensors").unlink()
    (place.checkpoint / "model.safetensors").mkdir()  # a folder in place of a file
    place.optimizer.unlink()
    lines = faults(place, hashes=False)
    assert len(lines) == 3
    assert all("missing" in line for line in lines)
    assert len(faults(place, hashes=True, only="checkpoint/")) == 2
    assert len(faults(place, hashes=True, only="optimizer.pt")) == 1


def test_a_stage_of_an_earlier_version_has_no_checksums(place):
    place.checksums.unlink()
    (place.checkpoint / "model.safetensors").write_bytes(b"")
    assert faults(place, hashes=True) == []


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '{"checkpoint/config.json": 1}', '{"a": {"size": "2"}}'])
def test_damaged_checksums_are_a_fault_themselves(place, text):
    place.checksums.write_text(text)
    (line,) = faults(place, hashes=False)
    assert "checksums.json" in line


KILLED = """
import os, signal, sys
from pathlib import Path
from cascade_rl.store import StageFolder, checksums, files
place, at = StageFolder(Path(sys.argv[1])), int(sys.argv[2])
calls = 0
def counted(function):
    def call(*args, **keywords):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **keywords)
    return call
os.rename, os.replace, os.fsync = map(counted, (os.rename, os.replace, os.fsync))
with checksums.publishing_checkpoint(place) as folder:
    (folder / "model.safetensors").write_bytes(b"new")
print(calls)
"""


def test_wherever_a_kill_falls_a_checkpoint_has_its_checksums(tmp_path):
    """Killed before each rename and fsync in turn; then the stage is published again."""

    def attempt(at):
        return subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a-1"), str(at)], capture_output=True)

    whole = attempt(0)
    assert whole.returncode == 0, whole.stderr
    place = StageFolder(tmp_path / "a-1")
    assert int(whole.stdout) >= 6
    for at in range(1, int(whole.stdout) + 1):
        for path in (place.checkpoint, place.path):
            if path.exists():
                subprocess.run(["rm", "-r", str(path)], check=True)
        assert attempt(at).returncode == -signal.SIGKILL
        if place.checkpoint.exists():
            assert "checkpoint/model.safetensors" in json.loads(place.checksums.read_text())
            assert faults(place, hashes=True) == []
        with publishing_checkpoint(place) as folder:
            (folder / "model.safetensors").write_bytes(b"again")
        assert faults(place, hashes=True) == []


def test_a_disk_that_cannot_read_is_a_fault(place, monkeypatch):
    from cascade_rl.store import checksums

    def broken(path, *args):
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(checksums, "open", broken, raising=False)
    assert len(faults(place, hashes=True)) == 5


def test_without_checksums_the_files_must_be_there(place):
    place.checksums.unlink()
    assert missing_files(place) == []
    index = place.checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}))
    (line,) = missing_files(place)
    assert "model-2.safetensors" in line
    index.write_text("[]")
    (line,) = missing_files(place)
    assert "index.json" in line
    for path in place.checkpoint.iterdir():
        path.unlink()
    assert len(missing_files(place)) == 2

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cascade_rl.store.files import (
    TEMPORARY,
    disk_fault,
    publishing,
    publishing_file,
    read_json,
    remove_leftovers,
    write_json,
    write_text,
)
from cascade_rl.types import CascadeError

ROOT = Path(__file__).parents[2]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"v": 1})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"v": 2})
    assert read_json(path) == {"v": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_publishing_is_all_or_nothing(tmp_path):
    folder = tmp_path / "result"
    with pytest.raises(RuntimeError), publishing(folder) as temporary:
        (temporary / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    for text in ("first", "second"):
        with publishing(folder) as temporary:
            (temporary / "file").write_text(text)
        assert (folder / "file").read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_broken_json_is_named_not_guessed(tmp_path):
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(CascadeError, match=r"x\.json"):
        read_json(tmp_path / "x.json")
    assert read_json(tmp_path / "none.json") is None


def test_leftovers_of_killed_writers_go(tmp_path):
    (tmp_path / f".a{TEMPORARY}1").mkdir()
    (tmp_path / f".b{TEMPORARY}2").write_text("")
    (tmp_path / "keep").write_text("")
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["keep"]


def test_a_reader_never_sees_half_a_file_while_the_writer_is_killed(tmp_path):
    """Ten writers, each killed in mid-air: what is there is always one whole version."""
    path = tmp_path / "state.json"
    write_json(path, {"round": -1, "fill": []})
    code = (
        "import sys, itertools; from pathlib import Path; from cascade_rl.store.files import write_json\n"
        "for i in itertools.count():\n"
        "    write_json(Path(sys.argv[1]), {'round': i, 'fill': [i] * 20000})\n"
        "    print(i, flush=True)\n"
    )
    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3):
            process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
        value = read_json(path)
        assert value["fill"] == [value["round"]] * (20000 if value["round"] >= 0 else 0)


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "t", "世界")
    assert (tmp_path / "t").read_bytes() == "世界".encode()


def test_publishing_a_file(tmp_path):
    with publishing_file(tmp_path / "a.bin") as path:
        path.write_bytes(b"new")
        assert not (tmp_path / "a.bin").exists()
    assert (tmp_path / "a.bin").read_bytes() == b"new"
    with pytest.raises(ValueError, match="no"), publishing_file(tmp_path / "a.bin") as path:
        path.write_bytes(b"half")
        raise ValueError("no")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.bin", b"new")]


def test_a_disk_that_takes_no_more_is_an_oserror_whoever_writes(tmp_path):
    """torch and safetensors have errors of their own for it. A limit on file sizes stands in for the full disk."""
    code = """
import resource, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from cascade_rl.store.files import publishing
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
tensors = {"a": torch.zeros(100_000)}
for write in (
    lambda folder: torch.save(tensors, folder / "a.pt"),
    lambda folder: save_file(tensors, folder / "a.safetensors"),
    lambda folder: (folder / "a.txt").write_text("a" * 200_000),
):
    try:
        with publishing(Path(sys.argv[1]) / "whole") as folder:
            write(folder)
    except OSError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    codes = [line.split("]")[0] for line in done.stdout.splitlines()]
    assert codes == ["[Errno 5", "[Errno 27", "[Errno 27"], done.stderr
    assert not list(tmp_path.iterdir())


def test_other_faults_stay_what_they_are(tmp_path):
    assert disk_fault(RuntimeError("shapes differ")) is None
    assert disk_fault(FileNotFoundError(2, "gone")) is None
    with pytest.raises(RuntimeError, match="shapes"), publishing(tmp_path / "x"):
        raise RuntimeError("shapes differ")

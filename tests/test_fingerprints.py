"""A change of a file is seen, however quickly it follows on a look at it."""

import hashlib
import os

import pytest

from cascade_rl import fingerprints
from cascade_rl.fingerprints import Watch, content_of, edges_hash, file_hash, recorded

LONG_AGO = 1_600_000_000


def sha(content):
    return hashlib.sha256(content).hexdigest()[:16]


@pytest.fixture
def reads(monkeypatch):
    """Paths whose content was read, in order."""
    found = []
    whole = fingerprints._whole
    monkeypatch.setattr(fingerprints, "_whole", lambda path: (found.append(path), whole(path))[1])
    return found


def settle(path):
    """Make the file look as if it was changed long ago (its ctime cannot be set, so that it is taken from mtime)."""
    os.utime(path, (LONG_AGO, LONG_AGO))


def test_a_hash_is_that_of_the_content(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"abc")
    assert file_hash(path) == content_hash(path) == sha(b"abc")
    assert edges_hash(path, edge=2) == sha(b"3" + b"ab" + b"c")
    path.write_bytes(b"abcdefg")
    assert edges_hash(path, edge=2) == sha(b"7" + b"ab" + b"fg")


def content_hash(path):
    with recorded() as files:
        assert content_of(path) == path.read_bytes()
    return files[str(path)]


def test_a_change_right_after_a_hash_is_seen(tmp_path):
    """Same size, and within one tick of the file system's clock: nothing but the content tells them apart."""
    path = tmp_path / "rows"
    for number in range(20):
        path.write_bytes(b"%03d" % number)
        assert file_hash(path) == sha(b"%03d" % number)


def test_a_file_that_stays_as_it_is_is_read_once(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(fingerprints, "SETTLED_NS", -(10**18))
    path = tmp_path / "rows"
    path.write_bytes(b"abc")
    assert [file_hash(path) for _ in range(3)] == [sha(b"abc")] * 3
    assert reads == [path]
    path.write_bytes(b"abcd")
    assert file_hash(path) == sha(b"abcd")
    settle(path)
    assert file_hash(path) == sha(b"abcd")
    assert len(reads) == 3


def test_a_file_changed_a_moment_ago_is_read_again(tmp_path, reads):
    path = tmp_path / "rows"
    path.write_bytes(b"abc")
    file_hash(path)
    file_hash(path)
    assert reads == [path, path]


def test_files_hashed_in_a_block_are_recorded(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"a")
    b.write_bytes(b"b")
    with recorded() as outer:
        file_hash(a)
        with recorded() as inner:
            file_hash(b)
    assert outer == {str(a): sha(b"a")}
    assert inner == {str(b): sha(b"b")}


def test_a_watch_tells_changed_files_from_touched_ones(tmp_path, reads):
    touched, changed, gone = (tmp_path / name for name in ("touched", "changed", "gone"))
    for path in (touched, changed, gone):
        path.write_bytes(b"abc")
    watch = Watch({str(path): sha(b"abc") for path in (touched, changed, gone)})
    assert watch.changed() == []
    assert reads == []
    settle(touched)
    changed.write_bytes(b"abcd")
    gone.unlink()
    lines = watch.changed()
    assert [line.partition(":")[0] for line in lines] == [str(changed), str(gone)]
    assert sha(b"abc") in lines[0]
    assert sha(b"abcd") in lines[0]

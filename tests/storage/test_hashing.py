import hashlib
import os
from pathlib import Path

import pytest

from llama_recipes_local.storage import hashing
from llama_recipes_local.storage.hashing import FileHashes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n')
    settle(path)
    return path


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "hashes.json"


def settle(path: Path) -> None:
    """Make a file look as if it had been written a minute ago."""
    past = path.stat().st_mtime_ns - 60 * 10**9
    os.utime(path, ns=(past, past))


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    read: list[Path] = []
    whole = hashing.contents_hash
    monkeypatch.setattr(hashing, "contents_hash", lambda path: read.append(path) or whole(path))
    return read


def test_the_hash_is_sha256(file: Path, memory: Path):
    assert FileHashes(memory).of([file]) == [hashlib.sha256(file.read_bytes()).hexdigest()]


def test_an_unchanged_file_is_read_once(file: Path, memory: Path, monkeypatch: pytest.MonkeyPatch):
    read = count_reads(monkeypatch)
    first = FileHashes(memory).of([file])
    assert FileHashes(memory).of([file]) == first
    assert read == [file]


def test_a_touched_file_is_read_again_and_has_the_same_hash(
    file: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
):
    read = count_reads(monkeypatch)
    first = FileHashes(memory).of([file])
    settle(file)
    assert FileHashes(memory).of([file]) == first
    assert read == [file, file]


def test_a_changed_row_of_the_same_size_and_time_is_seen(file: Path, memory: Path):
    first = FileHashes(memory).of([file])
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_text('{"text": "b"}\n')
    os.utime(file, ns=times)
    assert FileHashes(memory).of([file]) != first


def test_a_file_that_was_just_written_is_not_cached(tmp_path: Path, memory: Path):
    path = tmp_path / "new.jsonl"
    path.write_text("1")
    FileHashes(memory).of([path])
    assert not memory.exists()


@pytest.mark.parametrize("content", ["", "half {", "[1]"])
def test_a_corrupt_cache_is_ignored(file: Path, memory: Path, content: str):
    memory.parent.mkdir()
    memory.write_text(content)
    assert FileHashes(memory).of([file]) == [hashlib.sha256(file.read_bytes()).hexdigest()]


def test_a_file_that_changes_while_it_is_read_is_not_cached(
    file: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
):
    def write_after(path: Path) -> str:
        path.write_text('{"text": "other"}\n')
        settle(path)
        return "what was read before"

    monkeypatch.setattr(hashing, "contents_hash", write_after)
    FileHashes(memory).of([file])
    assert not memory.exists()


def test_a_cache_that_cannot_be_written_is_ignored(file: Path):
    assert len(FileHashes(file / "hashes.json").of([file])) == 1


def test_a_hash_of_ends_sees_names_sizes_order_and_both_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "ENDS", 2)
    contents = {"a": b"abcdefg", "b": b"hi"}
    files = [tmp_path / name for name in contents]
    for path in files:
        path.write_bytes(contents[path.name])
    known = {hashing.ends_hash(files)}

    def is_seen(name: str, content: bytes) -> bool:
        (tmp_path / name).write_bytes(content)
        found = hashing.ends_hash(files)
        (tmp_path / name).write_bytes(contents[name])
        return found not in known

    assert is_seen("a", b"Xbcdefg")
    assert is_seen("a", b"abcdefX")
    assert is_seen("a", b"abcdXefg")
    assert not is_seen("a", b"abcXefg")
    assert hashing.ends_hash(files[::-1]) not in known
    assert hashing.ends_hash(files[:1]) not in known

import errno
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from llama_recipes_local.data.audit import Counts
from llama_recipes_local.data.cache import ABOUT, ROWS, Built, cache_folder, cached
from llama_recipes_local.data.token_rows import Chunk
from llama_recipes_local.storage import flock

IDS = [[1, 5, 2], [1, 7, 8, 2]]


def build() -> Built:
    yield Chunk.of(IDS[:1], IDS[:1]), Counts(records=2, blank=1)
    yield Chunk.of(IDS[1:], IDS[1:]), Counts(records=1, truncated=1)


def never() -> Built:
    raise AssertionError("made again without need")
    yield


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "grammar-1234"


def ids(entry: Path, make: Callable[[], Built]) -> tuple[list[list[int]], str]:
    rows, _, how = cached(entry, make)
    return [row["input_ids"] for row in map(rows.__getitem__, range(len(rows)))], how


def test_made_once_then_read(entry: Path):
    assert ids(entry, build) == (IDS, "made")
    assert ids(entry, never) == (IDS, "from cache")


def test_the_audit_is_kept_with_the_rows(entry: Path):
    made, read = cached(entry, build)[1], cached(entry, never)[1]
    assert made == read
    assert made.counts == Counts(records=3, blank=1, truncated=1)
    assert (made.rows, made.tokens, made.label_tokens, made.longest) == (2, 7, 5, 4)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def test_a_changed_token_is_noticed(entry: Path):
    cached(entry, build)
    content = (entry / ROWS).read_bytes()
    place = content.index(np.array(IDS[1], np.int32).tobytes())
    (entry / ROWS).write_bytes(content[:place] + b"\x03" + content[place + 1 :])
    found, how = ids(entry, build)
    assert found == IDS
    assert "another checksum" in how


@pytest.mark.parametrize("harm", [flip_a_byte, cut_short, Path.unlink])
@pytest.mark.parametrize("name", [ROWS, ABOUT])
def test_a_corrupt_entry_is_made_again(entry: Path, name: str, harm: Callable[[Path], None]):
    cached(entry, build)
    harm(entry / name)
    found, how = ids(entry, build)
    assert found == IDS
    if not (name == ABOUT and harm is flip_a_byte):  # a flipped digit of a count is still JSON
        assert how.startswith("made again: in the cache, ")
    if harm is Path.unlink:
        assert how.endswith(f"{name} is missing")
    assert ids(entry, never) == (IDS, "from cache")


def test_a_failed_build_leaves_nothing(entry: Path):
    def fail() -> Built:
        yield from build()
        raise ValueError("row 3")

    with pytest.raises(ValueError, match="row 3"):
        cached(entry, fail)
    assert [path.name for path in entry.parent.iterdir() if path.is_dir()] == []
    assert ids(entry, build) == (IDS, "made")


def test_an_entry_appears_whole(entry: Path, monkeypatch: pytest.MonkeyPatch):
    def slow() -> Built:
        for part in build():
            assert not entry.exists()
            yield part
        assert not entry.exists()

    def fail(self: Path, target: Path) -> None:
        raise OSError("no renaming")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="no renaming"):
            cached(entry, slow)
    assert not entry.exists()
    assert ids(entry, slow) == (IDS, "made")


def test_what_a_killed_process_left_is_removed(entry: Path):
    left = entry.with_name(f".{entry.name}.incomplete")
    left.mkdir(parents=True)
    (left / ROWS).write_bytes(b"half")
    assert ids(entry, build) == (IDS, "made")
    assert not left.exists()


def make_slowly(entry: Path, made: Path) -> None:
    def slow() -> Built:
        with made.open("a") as file:
            file.write(f"{os.getpid()}\n")
        for part in build():
            time.sleep(0.1)
            yield part

    assert ids(entry, slow)[0] == IDS


def test_one_process_makes_it_and_the_others_wait(entry: Path, tmp_path: Path):
    made = tmp_path / "made"
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=make_slowly, args=(entry, made)) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    assert len(made.read_text().splitlines()) == 1


@contextmanager
def no_locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    with monkeypatch.context() as patch:
        patch.setattr(flock.fcntl, "flock", refuse)
        yield


def test_without_locks_each_makes_it_and_all_have_it(
    entry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    context = multiprocessing.get_context("fork")
    with no_locks(monkeypatch):
        ranks = [context.Process(target=make_slowly, args=(entry, tmp_path / "m")) for _ in "123"]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    assert ids(entry, never) == (IDS, "from cache")
    assert [path.name for path in entry.parent.iterdir() if path.is_dir()] == [entry.name]


def read_only(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Refuse to create anything in a folder; root, who runs tests, may write everywhere."""
    open_file, make = os.open, Path.mkdir

    def refuse_file(path: Path, flags: int, *rest: int) -> int:
        if Path(path).parent == folder and flags & (os.O_RDWR | os.O_CREAT):
            raise PermissionError(errno.EACCES, "it may only be read", str(path))
        return open_file(path, flags, *rest)

    def refuse_folder(path: Path, *rest: int, **options: bool) -> None:
        if path.parent == folder:
            raise PermissionError(errno.EACCES, "it may only be read", str(path))
        make(path, *rest, **options)

    monkeypatch.setattr(os, "open", refuse_file)
    monkeypatch.setattr(Path, "mkdir", refuse_folder)


def test_a_cache_that_may_only_be_read_gives_what_it_has(
    entry: Path, monkeypatch: pytest.MonkeyPatch
):
    cached(entry, build)
    entry.with_name(f".{entry.name}.lock").unlink()
    read_only(monkeypatch, entry.parent)
    assert ids(entry, never) == (IDS, "from cache")
    with pytest.raises(PermissionError):
        cached(entry.with_name("another"), build)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("LLAMA_RECIPES_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "llama-recipes-local"
    monkeypatch.setenv("LLAMA_RECIPES_CACHE", str(tmp_path / "env"))
    assert cache_folder() == tmp_path / "env"
    assert cache_folder(str(tmp_path / "flag")) == tmp_path / "flag"
    assert cache_folder("~/flag") == Path.home().resolve() / "flag"

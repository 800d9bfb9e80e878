"""A model's files are read while the imports take their seconds, and nothing depends on it."""

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from llama_recipes_local import finetuning
from llama_recipes_local.api import logged_run
from llama_recipes_local.storage import read_ahead as module
from llama_recipes_local.storage.read_ahead import BLOCK, read_ahead


def pages_in_memory(file: Path) -> float:
    """Return the share of a file's pages that are in the page cache."""
    size = file.stat().st_size
    found = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    with file.open("rb") as opened:
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, opened.fileno(), 0)
    libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), found)
    libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
    return sum(page & 1 for page in found) / len(found)


def drop_from_memory(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if pages_in_memory(file):
        pytest.skip("the file system of the temporary folder keeps its pages")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, size in enumerate((2 * BLOCK + 12345, 1, 0)):
        (tmp_path / f"model-{number}.safetensors").write_bytes(os.urandom(size))
    (tmp_path / "other.bin").write_bytes(bytes(BLOCK))
    return tmp_path


def test_every_page_of_the_weights_is_read_and_no_other_file(folder: Path) -> None:
    files = [folder / "model-0.safetensors", folder / "model-1.safetensors", folder / "other.bin"]
    for file in files:
        drop_from_memory(file)
    for thread in read_ahead(str(folder)):
        thread.join()
    assert [pages_in_memory(file) for file in files] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("given", [None, "", 5, True, "/no/model", "~nobody-here/x", "a\0b", "."])
def test_what_is_no_folder_of_weights_is_left_to_preflight(given: object) -> None:
    assert read_ahead(given) == []


def test_more_than_half_of_the_memory_is_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 2 * BLOCK + 12346
    monkeypatch.setattr(module, "_available", lambda: 2 * size - 1)
    assert read_ahead(folder) == []
    monkeypatch.setattr(module, "_available", lambda: 2 * size)
    assert len(read_ahead(folder)) == 4


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_files_that_cannot_be_read_disturb_nothing(folder: Path) -> None:
    (folder / "model-3.safetensors").mkdir()
    for thread in read_ahead(folder):
        thread.join()
    (folder / "model-4.safetensors").symlink_to(folder / "gone")
    assert read_ahead(folder) == []


@pytest.mark.parametrize(("local_rank", "reads"), [("0", True), ("1", False)])
def test_one_process_of_a_host_reads(
    monkeypatch: pytest.MonkeyPatch, local_rank: str, reads: bool
) -> None:
    monkeypatch.setenv("RANK", local_rank)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29500")
    named: list[object] = []
    monkeypatch.setattr(logged_run, "read_ahead", named.append)
    monkeypatch.setattr(logged_run, "import_run", lambda: pytest.fail("past it"))
    with pytest.raises(pytest.fail.Exception):
        finetuning.finetune((), {"model_name": "a-model"})
    assert named == (["a-model"] if reads else [])

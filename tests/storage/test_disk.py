"""What is said of a write that failed is the reason that it has."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from llama_recipes_local.checkpoints import files
from llama_recipes_local.checkpoints.writing import Content, SavingError, Writer
from llama_recipes_local.console import expected_failure

REASONS = {
    errno.ENOSPC: ("no space left on device", "free space there"),
    errno.EDQUOT: ("your disk quota is used up", "have the quota raised"),
    errno.EFBIG: ("a file may not become that large", "`ulimit -f`"),
    errno.EROFS: ("the file system is read-only", "name a folder elsewhere"),
    errno.EACCES: ("permission denied", "give you access"),
    errno.EPERM: ("permission denied", "give you access"),
    errno.ENAMETOOLONG: ("the path is too long", "a shorter path"),
    errno.EIO: ("the disk failed", "`dmesg`"),
    errno.EMFILE: ("too many files are open", "--num_workers_dataloader 0"),
}


def errors(number: int) -> list[Exception]:
    """As Python raises it, and as Rust does."""
    text = os.strerror(number)
    return [
        OSError(number, text, "/a/file"),
        SafetensorError(f"Error while serializing: {text} (os error {number})"),
    ]


@pytest.mark.parametrize("number", REASONS)
def test_a_command_says_why_it_could_not_write(number: int, tmp_path: Path) -> None:
    why, fix = REASONS[number]
    for error in errors(number):
        failure = expected_failure(error, tmp_path)
        assert failure is not None and failure.code == 1
        first, second = failure.text.splitlines()
        assert first.startswith(f"stopped: {why} ({error})") and fix in second
        assert ("bytes are free in" in first) == (number == errno.ENOSPC)
        assert ("free space" in second) == (number == errno.ENOSPC)


@pytest.mark.parametrize("number", [*REASONS, errno.ENOTCONN])
def test_a_checkpoint_says_why_it_could_not_be_written(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: object) -> None:
        raise errors(number)[0]

    monkeypatch.setattr(files, "write_tensors", failing)
    writer = Writer(tmp_path, asynchronous=False)
    with pytest.raises(SavingError) as caught:
        weights = {"model": {"a": torch.ones(1)}}
        writer.save(Content(1, None, weights, {"trainer.json": {"step": 1}}))
        writer.finish()
    why, fix = REASONS.get(number, ("OSError: [Errno 107]", "see to that"))
    assert f"checkpoint-1 could not be written: {why}" in str(caught.value)
    assert fix in str(caught.value)
    wants_space = number in (errno.ENOSPC, errno.EDQUOT)
    assert ("--save_total_limit" in str(caught.value)) == wants_space


@pytest.mark.parametrize("kind", ["Python", "numpy", "torch"])
def test_a_host_without_memory_is_no_traceback(kind: str, tmp_path: Path) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        if kind == "Python":
            bytearray(2**60)
        elif kind == "numpy":
            np.ones(2**57)
        else:
            torch.empty(2**57)
    failure = expected_failure(caught.value, tmp_path)
    assert failure is not None and failure.code == 1
    assert failure.text.startswith("stopped: no memory left (") and "`ulimit -v`" in failure.text


def test_a_worker_that_may_open_no_file_is_no_traceback(tmp_path: Path) -> None:
    error = RuntimeError("Too many open files. Communication with the workers is no longer ...")
    failure = expected_failure(error, tmp_path)
    assert failure is not None and "`ulimit -n`" in failure.text
    assert expected_failure(RuntimeError("Too many cooks"), tmp_path) is None


def test_an_error_of_another_kind_keeps_its_traceback(tmp_path: Path) -> None:
    assert expected_failure(OSError(errno.ENOTCONN, "x"), tmp_path) is None
    assert expected_failure(ValueError("os error 2)"), tmp_path) is None

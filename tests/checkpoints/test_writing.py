"""The asynchronous writer: from copies, one checkpoint at a time, errors raised."""

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llama_recipes_local.checkpoints import layout, verifying, writing
from llama_recipes_local.checkpoints.reading import read_tensors
from llama_recipes_local.checkpoints.writing import Content, SavingError, Writer


class Gate:
    """Holds back the writing of tensors until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        write = writing.files.write_tensors

        def held(*arguments: Any) -> Any:
            assert self.open.wait(30)
            return write(*arguments)

        monkeypatch.setattr(writing.files, "write_tensors", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer(tmp_path, asynchronous=True)
    yield writer
    writer.close()


def content(step: int, tensor: torch.Tensor) -> Content:
    return Content(step, None, {"model": {"weight": tensor}}, {"trainer.json": {"step": step}})


def saved(output: Path, step: int) -> torch.Tensor:
    folder = layout.folder_of(output, step)
    verifying.verify(folder)
    target = torch.zeros(4)
    read_tensors(folder / "model", {"weight": target})
    return target


def test_training_continues_while_a_checkpoint_is_written(
    writer: Writer, gate: Gate, tmp_path: Path
) -> None:
    weight = torch.ones(4)
    writer.save(content(1, weight))
    weight += 1
    assert not writer.written
    gate.open.set()
    writer.finish()
    assert saved(tmp_path, 1).tolist() == [1] * 4


def test_what_a_next_step_adds_to_a_list_is_not_in_the_checkpoint(
    writer: Writer, gate: Gate, tmp_path: Path
) -> None:
    losses = [0.5]
    values = {"trainer.json": {"losses": losses}}
    writer.save(Content(1, None, {"model": {"weight": torch.ones(4)}}, values))
    losses.append(0.25)
    gate.open.set()
    writer.finish()
    assert layout.read_json(layout.folder_of(tmp_path, 1) / "trainer.json") == {"losses": [0.5]}


def test_nothing_is_published_before_all_ranks_have_written(
    writer: Writer, gate: Gate, tmp_path: Path
) -> None:
    writer.save(content(1, torch.ones(4)))
    assert not layout.checkpoints_in(tmp_path)
    gate.open.set()
    while not writer.written:
        time.sleep(0.01)
    assert not layout.checkpoints_in(tmp_path)
    writer.finish()
    assert len(layout.checkpoints_in(tmp_path)) == 1


def test_the_next_save_waits_for_the_last(writer: Writer, gate: Gate, tmp_path: Path) -> None:
    weight = torch.ones(4)
    writer.save(content(1, weight))
    weight += 1
    threading.Timer(0.2, gate.open.set).start()
    writer.save(content(2, weight))
    assert saved(tmp_path, 1).tolist() == [1] * 4
    writer.finish()
    assert saved(tmp_path, 2).tolist() == [2] * 4


def test_an_error_in_the_thread_is_raised_and_the_draft_removed(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.save(content(1, torch.ones(4)))
    writer.finish()

    def full(*arguments: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing.files, "write_tensors", full)
    writer.save(content(2, torch.ones(4)))
    with pytest.raises(SavingError) as caught:
        writer.finish()
    assert "checkpoint-2 could not be written: no space left on device" in str(caught.value)
    assert f"the last checkpoint is {tmp_path / 'checkpoint-1'}" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    writer.finish()  # which has nothing more to report


def test_a_checkpoint_without_free_space_is_refused_with_sizes(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "free_bytes", lambda folder: 15)
    with pytest.raises(SavingError, match="it needs 16 bytes, 15 are free"):
        writer.save(content(1, torch.ones(4)))
    assert not list(tmp_path.iterdir())

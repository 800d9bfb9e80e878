"""A corrupt checkpoint is found, named and skipped; what it holds is never run."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import STEPS, Runs

from llama_recipes_local.checkpoints import layout, selection, verifying
from llama_recipes_local.checkpoints.layout import CorruptCheckpointError
from llama_recipes_local.configs import train_config
from llama_recipes_local.storage.hashing import contents_hash

Damage = Callable[[Path], None]
# what is read of a checkpoint when a run resumes from it
READ = (
    "identity.json",
    "trainer.json",
    "model/rank-00000-00000.safetensors",
    "optimizer/rank-00000-00000.safetensors",
    "random/rank-0.json",
)


def chosen(output: Path, asked: str = "auto") -> Path | None:
    return selection.select(train_config(output_dir=str(output), resume_from_checkpoint=asked))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_first(path: Path) -> None:
    flip(path, 0)


def flip_last(path: Path) -> None:
    flip(path, -1)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def files_of(folder: Path) -> list[str]:
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    kinds = ("manifest", "trainer", "identity", "run_config", "adapter_model", "adapter_config")
    for kind in (*kinds, "model/", "optimizer/", "random/"):
        assert any(name.startswith(kind) for name in names), kind
    return names


@pytest.mark.parametrize("damage", [truncate, flip_first, flip_last, Path.unlink])
def test_each_corrupt_file_is_named_and_the_previous_checkpoint_selected(
    output: Path, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    newest, before = output / f"checkpoint-{STEPS}", output / "checkpoint-11"
    assert chosen(output) == newest
    for name in files_of(newest):
        path = newest / name
        whole = path.read_bytes()
        damage(path)
        capsys.readouterr()
        assert chosen(output) == before, name
        said = capsys.readouterr().out
        assert str(path) in said
        assert f"checkpoint-{STEPS} skipped: corrupt" in said
        with pytest.raises(CorruptCheckpointError) as caught:
            chosen(output, str(newest))
        assert str(path) in str(caught.value)
        assert str(before) in str(caught.value)  # as what to give instead
        path.write_bytes(whole)
    assert chosen(output) == newest


def test_every_byte_of_a_manifest_is_checked(output: Path) -> None:
    path = output / f"checkpoint-{STEPS}" / layout.MANIFEST
    text = path.read_text()
    for place in range(len(text)):
        for character in (chr(ord(text[place]) ^ 1), " " if text[place] == "\n" else "\n"):
            with pytest.raises(ValueError, match=r"manifest|was changed|format"):
                layout.parse_manifest(text[:place] + character + text[place + 1 :])
    assert layout.parse_manifest(text).step == STEPS


def test_without_an_intact_checkpoint_training_starts_from_scratch(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in layout.checkpoints_in(output):
        truncate(folder / layout.TRAINER)
    assert chosen(output) is None
    assert "starting from scratch" in capsys.readouterr().out


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def signed(folder: Path, name: str, content: bytes) -> None:
    """Put content into a checkpoint as if it had been written there."""
    (folder / name).write_bytes(content)
    manifest = layout.read_manifest(folder)
    entry = layout.FileEntry(len(content), contents_hash(folder / name))
    changed = layout.Manifest(
        manifest.step, manifest.ranks, manifest.validation_loss, {**manifest.files, name: entry}
    )
    (folder / layout.MANIFEST).write_text(changed.text())


def test_a_pickle_in_a_file_is_never_run(
    runs: Runs, lora: dict[str, Any], output: Path, tmp_path: Path
) -> None:
    """Each file that is read is in turn a pickle that the manifest vouches for."""
    folder = output / "checkpoint-11"
    shutil.rmtree(output / f"checkpoint-{STEPS}")
    mark = tmp_path / "exploded"
    bomb = pickle.dumps(Bomb(mark))
    pickle.loads(bomb)
    assert mark.is_dir()  # it does go off
    mark.rmdir()
    log = output / "logs" / "0.log"
    for name in READ:
        whole = (folder / name).read_bytes()
        signed(folder, name, bomb)
        verifying.check_sizes(folder)
        said_before = len(log.read_text())
        ended = runs(output, lora | {"save_steps": 11, "resume_from_checkpoint": str(folder)})
        said = log.read_text()[said_before:]
        assert ended.codes == [2], (name, said)
        assert not mark.exists(), name
        assert str(folder) in said
        assert "Traceback" not in said, said
        signed(folder, name, whole)
    (folder / layout.MANIFEST).write_bytes(bomb)
    assert chosen(output) is None
    assert not mark.exists()


def test_the_index_of_a_checkpoint_is_json(output: Path) -> None:
    found = list(output.rglob("checkpoint-*/**/*.json"))
    assert {layout.MANIFEST, layout.TRAINER} <= {path.name for path in found}
    for path in found:
        json.loads(path.read_text())

"""Files appear whole or not at all."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from llama_recipes_local.storage.publishing import published_files, published_folder

Publish = Callable[[Path], AbstractContextManager[Path]]
both = pytest.mark.parametrize("publish", [published_folder, published_files])


class HalfwayError(Exception):
    """Stands for whatever ends a save halfway."""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder with an old checkpoint."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "weights").write_text("old")
    (folder / "notes").write_text("old")
    return folder


def contents(folder: Path) -> dict[str, str]:
    """What a reader of the folder finds; hidden files are drafts."""
    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    return {path.name: path.read_text() for path in files}


def interrupt(publish: Publish, target: Path) -> None:
    with pytest.raises(HalfwayError), publish(target) as draft:
        (draft / "weights").write_text("half")
        (draft / "more").write_text("half")
        raise HalfwayError


@both
def test_an_exception_leaves_the_old_content(publish: Publish, target: Path) -> None:
    interrupt(publish, target)
    assert contents(target) == {"weights": "old", "notes": "old"}


@both
def test_an_exception_leaves_no_half_written_target(publish: Publish, tmp_path: Path) -> None:
    target = tmp_path / "new" / "checkpoint"
    interrupt(publish, target)
    assert not target.exists() or contents(target) == {}


@both
def test_files_of_an_interrupted_save_are_not_in_the_next(publish: Publish, target: Path) -> None:
    interrupt(publish, target)
    with publish(target) as draft:
        assert list(draft.iterdir()) == []
        (draft / "weights").write_text("new")
    assert contents(target)["weights"] == "new"
    assert "more" not in contents(target)
    assert not list(target.parent.rglob(".*"))


@both
def test_nothing_is_seen_before_the_block_ends(publish: Publish, target: Path) -> None:
    with publish(target) as draft:
        (draft / "weights").write_text("new")
        assert contents(target) == {"weights": "old", "notes": "old"}


@both
def test_missing_folders_are_made(publish: Publish, tmp_path: Path) -> None:
    with publish(tmp_path / "a" / "b") as draft:
        (draft / "weights").write_text("new")
    assert contents(tmp_path / "a" / "b") == {"weights": "new"}
    assert not list(tmp_path.rglob(".*"))


def test_a_folder_is_replaced_as_a_whole(target: Path) -> None:
    with published_folder(target) as draft:
        (draft / "weights").write_text("new")
    assert contents(target) == {"weights": "new"}
    assert [path.name for path in target.parent.iterdir()] == ["checkpoint"]


def test_files_without_a_successor_stay(target: Path) -> None:
    with published_files(target) as draft:
        (draft / "weights").write_text("new")
    assert contents(target) == {"weights": "new", "notes": "old"}


def test_a_failed_rename_leaves_the_old_folder_and_the_new(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is interrupted, the old folder or the new one is there under one of two names."""
    rename = Path.rename

    def fail_at_the_target(self: Path, to: Path) -> Path:
        if to == target:
            raise HalfwayError
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_at_the_target)
    with pytest.raises(HalfwayError), published_folder(target) as draft:
        (draft / "weights").write_text("new")
    assert contents(target.with_name(".checkpoint.old")) == {"weights": "old", "notes": "old"}
    assert contents(draft) == {"weights": "new"}

"""Files appear whole or not at all."""

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from llama_recipes_local import cli
from llama_recipes_local.storage import publishing
from llama_recipes_local.storage.publishing import (
    published_file,
    published_files,
    published_folder,
    remove,
)

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
    """Where two paths cannot be swapped, the old folder is put back by whoever comes next."""
    rename = Path.rename

    def killed_in_between(self: Path, to: Path) -> Path:
        if to == target and not target.exists():
            raise HalfwayError
        return rename(self, to)

    monkeypatch.setattr(publishing, "exchange", lambda a, b: False)
    monkeypatch.setattr(Path, "rename", killed_in_between)
    with pytest.raises(HalfwayError), published_folder(target) as draft:
        (draft / "weights").write_text("new")
    monkeypatch.setattr(Path, "rename", rename)
    assert not target.exists()
    assert contents(target.with_name(".checkpoint.old")) == {"weights": "old", "notes": "old"}
    assert contents(draft) == {"weights": "new"}
    interrupt(published_folder, target)
    assert contents(target) == {"weights": "old", "notes": "old"}


def test_a_folder_is_there_at_every_moment(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is swapped with its successor by the system: there is no moment between two renames."""
    seen, rename = [], Path.rename

    def look(self: Path, to: Path) -> Path:
        try:
            return rename(self, to)
        finally:
            seen.append((target / "weights").is_file())

    monkeypatch.setattr(Path, "rename", look)
    with published_folder(target) as draft:
        (draft / "weights").write_text("new")
    assert seen and all(seen)
    assert contents(target) == {"weights": "new"}
    assert [path.name for path in target.parent.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("publish", [published_folder, published_files, published_file])
@pytest.mark.parametrize("what", ["file", "link to a file", "link to a folder", "broken link"])
def test_what_lies_in_place_of_a_draft_is_removed_and_no_link_followed(
    publish: Publish, what: str, target: Path, tmp_path: Path
) -> None:
    drafts = [target / ".incomplete", target.with_name(".checkpoint.incomplete")]
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret").write_text("kept")
    for draft in drafts:
        if what == "file":
            draft.write_text("half")
        else:
            name = {"link to a file": "private/secret", "link to a folder": "private"}
            draft.symlink_to(tmp_path / name.get(what, "nowhere"))
    if publish is published_file:
        remove(target)
    with publish(target) as draft:
        (draft if publish is published_file else draft / "weights").write_text("new")
    assert (target if publish is published_file else target / "weights").read_text() == "new"
    assert [path.name for path in (tmp_path / "private").iterdir()] == ["secret"]
    assert (tmp_path / "private" / "secret").read_text() == "kept"
    assert not (tmp_path / "nowhere").exists()


def test_processes_without_a_lock_write_drafts_of_their_own(target: Path) -> None:
    with published_folder(target, shared=True) as draft, published_folder(target) as other:
        (other / "weights").write_text("other")
        (draft / "weights").write_text("new")
    assert contents(target) == {"weights": "new"}


@pytest.mark.parametrize("words", [["generate", "--prompt", "a", "--model_name"], ["convert"]])
def test_a_reader_says_where_the_content_of_a_replaced_folder_is(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process was killed between two renames, where paths cannot be exchanged."""
    old = publishing.old_of(tmp_path / "model")
    old.mkdir()
    out = ["--out", str(tmp_path / "out")] if words == ["convert"] else []
    assert cli.main([*words, str(tmp_path / "model"), *out]) == 2
    assert f"mv {old} {tmp_path / 'model'}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["n" * 255, "名" * 85], ids=["English", "Chinese"])
@pytest.mark.parametrize("shared", [False, True])
def test_the_longest_name_can_be_published(name: str, shared: bool, tmp_path: Path) -> None:
    for text in ("old", "new"):
        with published_folder(tmp_path / name, shared=shared) as draft:
            (draft / "weights").write_text(text)
    assert contents(tmp_path / name) == {"weights": "new"}
    with published_file(tmp_path / f"f{name[1:]}", shared) as draft:
        draft.write_text("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"f{name[1:]}"])


def test_a_pipe_or_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    """Nor a device: the way to throw output away is ``/dev/null``."""
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for target in (pipe, folder):
        with pytest.raises(FileExistsError, match="left as it is"):
            publishing.write_text(target, "text")
    assert pipe.is_fifo() and folder.is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "folder"}


def test_a_file_that_another_thread_renames_keeps_no_folder_from_following_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest of a run, for example, is written while the folder is looked through."""
    drafts = [tmp_path / ".a.incomplete", tmp_path / "b"]
    for path in drafts:
        path.touch(0o600)

    def seen_before_the_renaming(folder: Path, pattern: str) -> list[Path]:
        drafts[0].rename(tmp_path / "a")
        return drafts

    monkeypatch.setattr(Path, "rglob", seen_before_the_renaming)
    publishing.follow_umask(tmp_path)
    (tmp_path / "new").touch()
    assert drafts[1].stat().st_mode == (tmp_path / "new").stat().st_mode


def test_threads_write_a_shared_file_at_once(tmp_path: Path) -> None:
    """The cache of hashes, for example, by the thread of a run that failed and the next run."""
    target, begun = tmp_path / "hashes.json", threading.Event()

    def write_meanwhile() -> None:
        publishing.write_text(target, "of the thread", shared=True)
        begun.set()

    with published_file(target, shared=True) as draft:
        draft.write_text("of the ru")
        threading.Thread(target=write_meanwhile).start()
        begun.wait()
        assert target.read_text() == "of the thread" and draft.read_text() == "of the ru"
        draft.write_text("of the run")
    assert target.read_text() == "of the run"
    assert list(tmp_path.iterdir()) == [target]

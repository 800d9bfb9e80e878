"""Writes files completely or not at all: to a draft next to the target, synced, then renamed."""

import errno
import json
import os
import shutil
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llama_recipes_local.storage.names import hidden_beside
from llama_recipes_local.storage.renaming import exchange

# what has the name is a folder with something in it, a file, or a link
IN_THE_WAY = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def _alone() -> None:
    """The barrier of a single process: does nothing."""


@contextmanager
def published_folder(
    target: Path,
    *,
    main_process: bool = True,
    barrier: Callable[[], None] = _alone,
    shared: bool = False,
) -> Iterator[Path]:
    """Yield a folder that replaces ``target`` when all processes have left the block.

    What was in ``target`` is removed only once the new folder is in its place. All processes enter
    and leave together, and may all write. If the block fails nothing of it is left, because a draft
    of many gigabytes may be what fills the disk.

    Args:
        target: the folder to replace or create.
        main_process: whether this process creates and renames the folder; one of them does.
        barrier: waits until all processes have called it.
        shared: whether other processes may write the same folder, without a lock; one of them wins.
    """
    draft = _own_draft_of(target) if shared else draft_of(target)
    if main_process:
        recover(target)
        _begin(draft)
    barrier()
    try:
        yield draft
        barrier()
        if main_process:
            _sync_files(draft)
    except BaseException:
        if main_process:
            shutil.rmtree(draft, ignore_errors=True)
        raise
    if main_process:
        publish(draft, target)
    barrier()


@contextmanager
def published_files(target: Path) -> Iterator[Path]:
    """Yield a folder whose files are each renamed into ``target`` at the end of the block.

    For one process. Files of ``target`` that have no successor stay.
    """
    draft = target / ".incomplete"
    _begin(draft)
    try:
        yield draft
        follow_umask(draft)
        _sync_files(draft)
        for path in sorted(draft.iterdir()):
            os.replace(path, target / path.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    sync_folder(target)


@contextmanager
def published_file(target: Path, shared: bool = False) -> Iterator[Path]:
    """Yield the path of a file that replaces ``target`` at the end of the block.

    If the block fails nothing of it is left, and ``target`` is as it was. A link is followed.

    Args:
        target: the file to replace or create, in a folder that exists.
        shared: whether several processes or threads may write the file at once; the last wins.

    Raises:
        FileExistsError: if a device, a pipe or a folder is in its place: renaming would replace
            ``/dev/null`` itself.
    """
    target = Path(os.path.realpath(target))
    if target.exists() and not target.is_file():
        why = "it is no regular file, and is left as it is"
        raise FileExistsError(errno.EEXIST, why, str(target))
    draft = _own_draft_of(target) if shared else draft_of(target)
    remove(draft)  # never written through: it may be a link
    try:
        yield draft
        _sync(draft)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(target.parent)


def write_text(path: Path, text: str, shared: bool = False) -> None:
    """Write a text file in UTF-8, whole or not at all; see ``published_file``."""
    with published_file(path, shared) as draft:
        draft.write_text(text, "utf-8")


def write_json(path: Path, content: object, indent: int = 2) -> None:
    """Write a JSON file, whole or not at all; see ``published_file``."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


def draft_of(target: Path) -> Path:
    """Return where ``target`` is written before it is published."""
    return hidden_beside(target, ".incomplete")


def _own_draft_of(target: Path) -> Path:
    """Return where this thread writes ``target``, if others may write it at the same time."""
    thread = f"{socket.gethostname()}-{threading.get_native_id()}"  # no other on the host has it
    return hidden_beside(target, f".{thread}.incomplete")


def begin_draft(target: Path) -> Path:
    """Create the empty folder that ``target`` is written in; one process does."""
    recover(target)
    return _begin(draft_of(target))


def _begin(draft: Path) -> Path:
    remove(draft)
    draft.mkdir(parents=True)
    return draft


def remove(path: Path) -> None:
    """Remove a file, a link (not what it points to) or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def recover(target: Path) -> None:
    """Put a folder back that a process was killed while it replaced, if it is not there.

    Only where two paths cannot be swapped, see ``publish``.
    """
    old = old_of(target)
    if old.is_dir() and not target.exists():
        old.rename(target)


def follow_umask(folder: Path) -> None:
    """Give a folder's files the permissions of new files: libraries write some for the owner only.

    The process's umask can be read only by setting it, which other threads would see; so a new
    file's permissions are looked at.
    """
    probe = folder / ".permissions"
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a draft of another thread, which has its name by now
            found = path.lstat().st_mode
            if stat.S_ISREG(found) and found != mode:
                path.chmod(stat.S_IMODE(mode))


def publish(draft: Path, target: Path) -> None:
    """Rename a folder into its place; one process does, once all files are on the disk."""
    follow_umask(draft)
    for folder in (draft, *(path for path in draft.rglob("*") if path.is_dir())):
        sync_folder(folder)
    _replace(draft, target)
    sync_folder(target.parent)
    remove(draft)
    remove(old_of(target))


def _replace(draft: Path, target: Path) -> None:
    """Give a draft its name; what had it is left under the draft's name, or its ``old_of``."""
    try:
        draft.rename(target)
        return
    except OSError as error:
        if error.errno not in IN_THE_WAY:
            raise
    if not exchange(draft, target):
        old = old_of(target)
        remove(old)
        target.rename(old)  # killed here, ``recover`` puts it back
        draft.rename(target)


def old_of(target: Path) -> Path:
    """Return where what had a name is kept while it is replaced."""
    return hidden_beside(target, ".old")


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk: without that, a crash may undo a rename."""
    if os.name == "nt":  # where a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_files(folder: Path) -> None:
    """Flush a folder's files to the disk before a rename makes them count."""
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())

"""Writes checkpoints: every rank its part, the first rank the manifest and the name.

A checkpoint is written in a folder beside its place. When every rank has its files on the disk, the
first writes the manifest and renames the folder; until then nothing reads it. With an asynchronous
writer the ranks copy their tensors to host memory and go on; a thread writes.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from llama_recipes_local.checkpoints import files, layout, retention
from llama_recipes_local.checkpoints.layout import FileEntry, Manifest
from llama_recipes_local.checkpoints.shards import Piece, in_files, piece_of
from llama_recipes_local.checkpoints.staging import Staging
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.parallel import all_reduce_sum, barrier, is_rank_zero, rank, world_size
from llama_recipes_local.storage.disk import describe_full_disk, free_bytes
from llama_recipes_local.storage.publishing import begin_draft, draft_of, publish

FILE_BYTES = 2 << 30
THREADS = 4
Entries = dict[str, FileEntry]


class SavingError(TrainingError):
    """A checkpoint could not be written; those before it are whole."""


@dataclass(frozen=True)
class Content:
    """What a rank gives to a checkpoint.

    Attributes:
        step: optimiser steps done.
        validation_loss: of a validation at this step; None if there was none.
        tensors: by their folder and name, sharded or not; on every rank.
        values: JSON-ready contents of files, by their path; a rank gives what it has.
        extra: writes further files into the folder it is given; for the first rank.
    """

    step: int
    validation_loss: float | None
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    values: Mapping[str, Any]
    extra: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class _Job:
    """A checkpoint that is being written."""

    content: Content
    target: Path
    pieces: dict[str, list[Piece]]
    entries: "Future[Entries]" = field(default_factory=Future)


class Writer:
    """Writes a run's checkpoints, one at a time."""

    def __init__(self, output: Path, limit: int = 0, asynchronous: bool = False) -> None:
        """Write into ``output``.

        Args:
            output: the run's folder.
            limit: how many checkpoints to keep, see ``limits``; 0 means all.
            asynchronous: whether ``save`` returns as soon as the tensors are in host memory.
        """
        self.output = output
        self.limit = limit
        self._job: _Job | None = None
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._staging = Staging() if asynchronous else None

    @property
    def written(self) -> bool:
        """Whether this rank's part of a checkpoint is on the disk, and ``finish`` will not wait."""
        return self._job is not None and self._job.entries.done()

    def save(self, content: Content) -> None:
        """Write a checkpoint, or begin to; waits for the one before. All ranks call this together.

        Raises:
            SavingError: if it cannot be written, or the one before could not; on all ranks.
        """
        self.finish()
        target = layout.folder_of(self.output, content.step)
        parts = _parts(content)
        _check_room(target, sum(piece.size for part in parts.values() for piece in part))
        if is_rank_zero():
            begin_draft(target)
        barrier()
        if self._staging is not None:
            self._job = _Job(content, target, self._staging.copies(parts))
            self._thread.submit(_write_part, self._job)
        else:
            self._job = _Job(content, target, parts)
            _write_part(self._job)
            self.finish()

    def finish(self) -> None:
        """Publish the checkpoint that is being written, if one is; all ranks call this together.

        Raises:
            SavingError: if it could not be written; on all ranks.
        """
        if self._job is None:
            return
        job, self._job = self._job, None
        entries, errors = _from_all_ranks(job)
        if not errors and is_rank_zero():
            errors = _attempt(lambda: self._publish(job, entries))
        errors = _first_rank_says(errors)
        if errors:
            if is_rank_zero():
                shutil.rmtree(draft_of(job.target), ignore_errors=True)
            raise SavingError(_not_saved(job.target, errors))

    def close(self) -> None:
        """Let the thread end; what it writes will not be published."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._staging is not None:
            self._staging.close()

    def _publish(self, job: _Job, entries: Entries) -> None:
        content = job.content
        manifest = Manifest(content.step, world_size(), content.validation_loss, entries)
        draft = draft_of(job.target)
        files.write_file(draft / layout.MANIFEST, [manifest.text().encode()])
        publish(draft, job.target)
        retention.remove_surplus(self.output, self.limit)


def _parts(content: Content) -> dict[str, list[Piece]]:
    """Return the pieces that this rank writes, by file."""
    parts = {}
    for folder, tensors in content.tensors.items():
        pieces = [piece_of(name, tensor) for name, tensor in tensors.items()]
        for number, part in enumerate(in_files(filter(None, pieces), FILE_BYTES)):
            parts[f"{folder}/rank-{rank():05d}-{number:05d}.safetensors"] = part
    return parts


def _write_part(job: _Job) -> None:
    """Write this rank's files; what came of it is for ``finish`` to tell."""
    try:
        job.entries.set_result(_written(job))
    except BaseException as error:
        job.entries.set_exception(error)


def _written(job: _Job) -> Entries:
    draft = draft_of(job.target)
    entries: Entries = {}
    if job.content.extra is not None:
        job.content.extra(draft)
        extra = [path for path in draft.iterdir() if path.is_file()]
        entries |= {path.name: files.adopt(path) for path in extra}
    for path in (*job.pieces, *job.content.values):
        (draft / path).parent.mkdir(exist_ok=True)
    with ThreadPoolExecutor(THREADS) as pool:
        writing = {
            name: pool.submit(files.write_tensors, draft / name, pieces)
            for name, pieces in job.pieces.items()
        }
        for name, value in job.content.values.items():
            entries[name] = files.write_json(draft / name, value)
        return entries | {name: future.result() for name, future in writing.items()}


def _check_room(target: Path, size: int) -> None:
    """Refuse at once what the disk has no room for; all ranks call this together."""
    needed = int(all_reduce_sum(torch.tensor(size)))
    free = free_bytes(target.parent)
    lacking = free is not None and free < needed
    if all_reduce_sum(torch.tensor(int(lacking))):
        reason = f"it needs {needed:,} bytes, {free or 0:,} are free"
        raise SavingError(_not_saved(target, [reason]))


def _from_all_ranks(job: _Job) -> tuple[Entries, list[str]]:
    """Wait for this rank's part; return what all ranks wrote, and why some could not."""
    entries: Entries = {}
    errors = _attempt(lambda: entries.update(job.entries.result()))
    gathered: list[Any] = [(entries, errors)]
    if world_size() > 1:
        gathered = [None] * world_size()
        dist.all_gather_object(gathered, (entries, errors))
    every: Entries = {}
    for part, _ in gathered:
        every |= part
    return every, [error for _, part in gathered for error in part]


def _attempt(work: Callable[[], None]) -> list[str]:
    """Return why some work on files failed; nothing if it did not."""
    try:
        work()
    except Exception as error:  # whatever it is, all ranks are to hear of it
        return [describe_full_disk(error) or f"{type(error).__name__}: {error}"]
    return []


def _first_rank_says(errors: list[str]) -> list[str]:
    if world_size() > 1:
        said = [errors]
        dist.broadcast_object_list(said, src=0)
        return said[0]
    return errors


def _not_saved(target: Path, errors: Sequence[str]) -> str:
    whole = next((path for path in layout.checkpoints_in(target.parent) if path != target), None)
    last = f"the last checkpoint is {whole}" if whole else "there is no checkpoint before it"
    return (
        f"training stopped, for {target.resolve()} could not be written: {errors[0]}\n"
        f"   {last}\n"
        "   fix: make room there and go on with --resume_from_checkpoint auto; "
        "--save_total_limit N keeps fewer checkpoints"
    )

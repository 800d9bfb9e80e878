"""Writes checkpoints: each rank writes its shards, rank 0 the manifest, and then the final name.

A checkpoint is written to a draft folder next to its final place. Once every rank's files are on
the disk, rank 0 writes the manifest and renames the folder; until then nothing reads it. With
asynchronous saving, the ranks copy their tensors to host memory and continue training while a
thread writes.
"""

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from llama_recipes_local.checkpoints import files, layout, retention
from llama_recipes_local.checkpoints.layout import FileEntry, Manifest
from llama_recipes_local.checkpoints.shards import TensorShard, group_into_files, shard_of
from llama_recipes_local.checkpoints.staging import Staging
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.parallel import all_reduce_sum, barrier, is_rank_zero, rank, world_size
from llama_recipes_local.storage.disk import WriteFailure, free_bytes, write_failure
from llama_recipes_local.storage.publishing import begin_draft, draft_of, publish

FILE_BYTES = 2 << 30
THREADS = 4
Entries = dict[str, FileEntry]


class SavingError(TrainingError):
    """A checkpoint could not be written; those before it are intact."""


@dataclass(frozen=True)
class Content:
    """What a rank contributes to a checkpoint.

    Attributes:
        step: optimiser steps done.
        validation_loss: of a validation at this step; None if there was none.
        tensors: by their folder and name, sharded or not; on every rank.
        values: JSON-ready contents of files, by their path; each rank gives its own.
        extra: writes further files into the folder it is given; for the first rank.
        validation_tokens: label tokens of the validation.
    """

    step: int
    validation_loss: float | None
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    values: Mapping[str, Any]
    extra: Callable[[Path], None] | None = None
    validation_tokens: int | None = None


@dataclass(frozen=True)
class _Job:
    """A checkpoint that is being written."""

    content: Content
    target: Path
    shards: dict[str, list[TensorShard]]
    entries: "Future[Entries]" = field(default_factory=Future)


class Writer:
    """Writes a run's checkpoints, one at a time."""

    def __init__(self, output: Path, limit: int = 0, asynchronous: bool = False) -> None:
        """Write into ``output``.

        Args:
            output: the run's folder.
            limit: how many checkpoints to keep, see ``retention``; 0 means all.
            asynchronous: whether ``save`` returns as soon as the tensors are in host memory.
        """
        self.output = output
        self.limit = limit
        self._job: _Job | None = None
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._staging = Staging() if asynchronous else None

    @property
    def written(self) -> bool:
        """Whether this rank's part of a checkpoint is on the disk: ``finish`` will not wait."""
        return self._job is not None and self._job.entries.done()

    def save(self, content: Content) -> None:
        """Write a checkpoint, or begin to, after finishing the previous one.

        All ranks call this together.

        Raises:
            SavingError: if it, or the previous one, could not be written; on all ranks.
        """
        self.finish()
        target = layout.folder_of(self.output, content.step)
        parts = _parts(content)
        _check_free_space(target, sum(shard.size for part in parts.values() for shard in part))
        if is_rank_zero():
            begin_draft(target)
        barrier()
        if self._staging is not None:
            still = replace(content, values=deepcopy(content.values))  # the next step adds losses
            self._job = _Job(still, target, self._staging.copies(parts))
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
        errors = _first_ranks(errors)
        if errors:
            if is_rank_zero():
                shutil.rmtree(draft_of(job.target), ignore_errors=True)
            raise SavingError(_message(job.target, errors[0]))

    def give_up(self) -> None:
        """Remove the checkpoint that is being written, if one is; all ranks call this together."""
        if self._job is None:
            return
        job, self._job = self._job, None
        _from_all_ranks(job)
        if is_rank_zero():
            shutil.rmtree(draft_of(job.target), ignore_errors=True)

    def close(self) -> None:
        """Stop the thread; what it is writing is not published, and removed."""
        self._thread.shutdown(wait=self._job is not None, cancel_futures=True)
        if self._job is not None and is_rank_zero():
            shutil.rmtree(draft_of(self._job.target), ignore_errors=True)
        if self._staging is not None:
            self._staging.close()

    def _publish(self, job: _Job, entries: Entries) -> None:
        content = job.content
        manifest = Manifest(
            step=content.step,
            ranks=world_size(),
            validation_loss=content.validation_loss,
            files=entries,
            validation_tokens=content.validation_tokens,
        )
        draft = draft_of(job.target)
        files.write_file(draft / layout.MANIFEST, [manifest.text().encode()])
        publish(draft, job.target)
        retention.remove_surplus(self.output, self.limit)


def _parts(content: Content) -> dict[str, list[TensorShard]]:
    """Return the shards that this rank writes, by file."""
    parts = {}
    for folder, tensors in content.tensors.items():
        shards = [shard_of(name, tensor) for name, tensor in tensors.items()]
        for number, part in enumerate(group_into_files(filter(None, shards), FILE_BYTES)):
            parts[f"{folder}/rank-{rank():05d}-{number:05d}.safetensors"] = part
    return parts


def _write_part(job: _Job) -> None:
    """Write this rank's files; ``finish`` reports the result."""
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
        entries |= {path.name: files.sync_and_hash(path) for path in extra}
    for path in (*job.shards, *job.content.values):
        (draft / path).parent.mkdir(exist_ok=True)
    with ThreadPoolExecutor(THREADS) as pool:
        writing = {
            name: pool.submit(files.write_tensors, draft / name, shards)
            for name, shards in job.shards.items()
        }
        for name, value in job.content.values.items():
            entries[name] = files.write_json(draft / name, value)
        return entries | {name: future.result() for name, future in writing.items()}


def _check_free_space(target: Path, size: int) -> None:
    """Raise at once if the disk has too little space; all ranks call this together."""
    needed = int(all_reduce_sum(torch.tensor(size)))
    free = free_bytes(target.parent)
    too_little = free is not None and free < needed
    if all_reduce_sum(torch.tensor(int(too_little))):
        reason = f"it needs {needed:,} bytes, {free or 0:,} are free"
        raise SavingError(_message(target, WriteFailure(reason, "free space there", True)))


def _from_all_ranks(job: _Job) -> tuple[Entries, list[WriteFailure]]:
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


def _attempt(work: Callable[[], None]) -> list[WriteFailure]:
    """Return why some work on files failed; an empty list if it did not."""
    try:
        work()
    except Exception as error:  # whatever it is, all ranks must learn of it
        known = write_failure(error)
        return [known or WriteFailure(f"{type(error).__name__}: {error}", "see to that")]
    return []


def _first_ranks(errors: list[WriteFailure]) -> list[WriteFailure]:
    if world_size() > 1:
        shared = [errors]
        dist.broadcast_object_list(shared, src=0)
        return shared[0]
    return errors


def _message(target: Path, failure: WriteFailure) -> str:
    intact = next((path for path in layout.checkpoints_in(target.parent) if path != target), None)
    fewer = "; --save_total_limit N keeps fewer checkpoints" if failure.fewer_help else ""
    last = f"the last checkpoint is {intact}" if intact else "there is no checkpoint before it"
    return (
        f"training stopped: {target.resolve()} could not be written: {failure.why}\n"
        f"   {last}\n"
        f"   fix: {failure.fix}, and resume with --resume_from_checkpoint auto{fewer}"
    )

"""Copies of a rank's tensors in host memory, from which a checkpoint is written asynchronously.

Training waits only for the copy from the device to pinned host memory. A thread then hashes and
writes the copies while the next steps change the weights; writing straight from the device would
stop training until the last byte is on the disk. The price is host memory for everything that a
rank saves. It is kept from one checkpoint to the next, because pinning memory takes seconds.
"""

import contextlib
import mmap
from collections.abc import Mapping

import torch

from llama_recipes_local.checkpoints.shards import TensorShard, copy_to_host


class Staging:
    """Copies tensors to buffers in host memory, which the next checkpoint reuses."""

    def __init__(self) -> None:
        self._pinned = torch.cuda.is_available()
        self._buffers: dict[tuple[str, int], torch.Tensor] = {}

    def copies(self, parts: Mapping[str, list[TensorShard]]) -> dict[str, list[TensorShard]]:
        """Copy shards, by file; this overwrites the previous copies."""
        staged = {
            path: copy_to_host(part, self._buffer(path, part)) for path, part in parts.items()
        }
        if self._pinned:
            torch.cuda.current_stream().synchronize()
        return staged

    def close(self) -> None:
        """Release the memory; what still reads the copies may continue."""
        for buffer in self._buffers.values():
            if self._pinned:
                torch.cuda.cudart().cudaHostUnregister(buffer.data_ptr())
        self._buffers.clear()

    def _buffer(self, path: str, shards: list[TensorShard]) -> torch.Tensor:
        key = (path, sum(shard.size for shard in shards))
        if key not in self._buffers:
            self._buffers[key] = _memory(key[1], self._pinned)
        return self._buffers[key]


def _memory(size: int, pinned: bool) -> torch.Tensor:
    """Return host memory, (size,) uint8, pinned or not.

    It consists of huge pages, touched before they are pinned: pinning takes CUDA more than twice as
    long if it has to create pages of the usual size.
    """
    memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    tensor = torch.frombuffer(memory, dtype=torch.uint8)
    tensor[:: mmap.PAGESIZE] = 0
    if pinned:
        failed = torch.cuda.cudart().cudaHostRegister(tensor.data_ptr(), len(tensor), 0)
        torch.cuda.check_error(int(failed))
    return tensor[:size]

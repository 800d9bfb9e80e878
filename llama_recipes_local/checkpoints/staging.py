"""Copies of a rank's tensors in host memory, from which a checkpoint is written."""

import contextlib
import mmap
from collections.abc import Mapping

import torch

from llama_recipes_local.checkpoints.shards import Piece, copied_to_host


class Staging:
    """Copies tensors to buffers in host memory, which are kept for the next time."""

    def __init__(self) -> None:
        self._pinned = torch.cuda.is_available()
        self._buffers: dict[tuple[str, int], torch.Tensor] = {}

    def copies(self, parts: Mapping[str, list[Piece]]) -> dict[str, list[Piece]]:
        """Copy pieces, by file; those of the time before are overwritten."""
        staged = {
            path: copied_to_host(part, self._buffer(path, part)) for path, part in parts.items()
        }
        if self._pinned:
            torch.cuda.current_stream().synchronize()
        return staged

    def close(self) -> None:
        """Let go of the memory; what still reads the copies may go on."""
        for buffer in self._buffers.values():
            if self._pinned:
                torch.cuda.cudart().cudaHostUnregister(buffer.data_ptr())
        self._buffers.clear()

    def _buffer(self, path: str, pieces: list[Piece]) -> torch.Tensor:
        key = (path, sum(piece.size for piece in pieces))
        if key not in self._buffers:
            self._buffers[key] = _memory(key[1], self._pinned)
        return self._buffers[key]


def _memory(size: int, pinned: bool) -> torch.Tensor:
    """Return host memory, (size,) uint8, pinned or not.

    It consists of huge pages that exist before they are pinned, for CUDA takes twice as long and
    more to make pages of the common size.
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

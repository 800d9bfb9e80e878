"""Weights that are stored as one-byte numbers with scales: 8-bit integers and FP8."""

from collections.abc import Sequence

import torch

from llama_recipes_local.model_folders.tensors import FLOATS, StoredTensors

_INT8_MAXIMUM = 127


class ScaledWeights:
    """The scaled weights among a model's tensors, by name.

    Those of bitsandbytes have a scale for each row, those in FP8 one for each block, or for all.
    """

    def __init__(self, stored: StoredTensors, block: Sequence[int]) -> None:
        """Find the scaled weights.

        Args:
            stored: the model's tensors.
            block: rows and columns of a block in FP8, if it has blocks.
        """
        headers = stored.headers()
        self._stored = stored
        self._block = block
        self._scales = {
            name: scale
            for name in headers
            for scale in (f"{name}_scale_inv", f"{name.removesuffix('weight')}SCB")
            if name.endswith("weight") and scale in headers
        }
        embedding = [
            each.dtype for name, each in headers.items() if name.endswith("embed_tokens.weight")
        ]
        self.dtype = _DTYPES.get(next(iter(embedding), ""), torch.float32)

    def __contains__(self, name: str) -> bool:
        return name in self._scales

    def __len__(self) -> int:
        return len(self._scales)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a weight, (rows, columns), in the dtype of the model's embedding."""
        weight = self._stored[name].float()
        scale = self._stored[self._scales[name]].float()
        if self._scales[name].endswith("SCB"):
            return (weight * scale[:, None] / _INT8_MAXIMUM).to(self.dtype)
        return (weight * _spread(scale, weight.shape, self._block)).to(self.dtype)


_DTYPES = dict(
    zip(FLOATS, (torch.float64, torch.float32, torch.float16, torch.bfloat16), strict=True)
)


def _spread(scale: torch.Tensor, shape: torch.Size, block: Sequence[int]) -> torch.Tensor:
    """Return the scale of each number of a weight of ``shape``, from the scales of its blocks."""
    if scale.numel() == 1:
        return scale.reshape(())
    for dimension, size in enumerate(shape):
        scale = scale.repeat_interleave(block[dimension], dimension).narrow(dimension, 0, size)
    return scale

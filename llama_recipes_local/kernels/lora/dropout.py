"""Dropout whose mask is a function of a seed and a position, so that it need not be kept.

Philox 4x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) in its variant with
seven rounds turns a counter into 128 random bits, 16 for each of eight neighbouring elements. So
the share of dropped elements is exact to 1/65536. The backward pass computes the mask again.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

ROUNDS = 7
LANES = 8  # elements that one counter decides on
RANGE = 1 << 16

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Dropout:
    """A dropout mask for a matrix.

    Attributes:
        share: share of the elements that are dropped, at least 0 and less than 1.
        seed: below 2**31; each seed gives another mask.
    """

    share: float = 0.0
    seed: int = 0

    @cached_property
    def threshold(self) -> int:
        """How many of the 2**16 values drop an element."""
        return round(self.share * RANGE)

    @cached_property
    def scale(self) -> float:
        """The factor of kept elements: 1 / (1 - share)."""
        return RANGE / (RANGE - self.threshold)

    def keeps(self, rows: int, columns: int) -> torch.Tensor:
        """Return which elements are kept, (rows, columns) bool in host memory.

        The Triton kernels compute the same; this is for other devices and for tests.
        """
        groups = -(-columns // LANES)
        row = torch.arange(rows)[:, None].expand(rows, groups)
        group = torch.arange(groups)[None, :].expand(rows, groups)
        zero = torch.zeros_like(row)
        words = _philox(self.seed, [row, group, zero, zero])
        halves = [half for word in words for half in (word & 0xFFFF, word >> 16)]
        # the order in which the kernel joins them: first by word, then by half of a word
        order = [4 * (lane >> 1 & 1) + 2 * (lane >> 2) + (lane & 1) for lane in range(LANES)]
        bits = torch.stack([halves[index] for index in order], dim=-1).flatten(1)
        return bits[:, :columns] >= self.threshold

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x``, (rows, columns), with dropout."""
        if not self.share:
            return x
        return x * self.keeps(x.shape[0], x.shape[1]).to(x.device, x.dtype) * self.scale


def _philox(seed: int, counter: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return four words of 32 bits for each counter of four words, as int64."""
    key = [seed & _WORD, seed >> 32]
    c0, c1, c2, c3 = counter
    for _ in range(ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ key[0], low1, high0 ^ c3 ^ key[1], low0
        key = [(word + step) & _WORD for word, step in zip(key, _KEY_STEPS, strict=True)]
    return [c0, c1, c2, c3]


def _multiply(a: int, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the high and the low word of a product of two words, without overflow of int64."""
    low, high = (a & 0xFFFF) * b, (a >> 16) * b
    middle = high + (low >> 16)
    return middle >> 16, (middle & 0xFFFF) << 16 | low & 0xFFFF

"""Limits of the difference between a GGUF file of each type and its model."""

from llama_recipes_local.gguf_files.gguf_choices import DIVERGENCES, RISES
from llama_recipes_local.model_folders.read_back import Block, Tolerances

ERRORS = {
    "F32": 0.0,
    "F16": 0.002,
    "BF16": 0.004,
    "Q8_0": 0.02,
    "Q6_K": 0.05,
    "Q5_K": 0.1,
    "Q5_1": 0.1,
    "Q5_0": 0.1,
    "Q4_K": 0.2,
    "Q4_1": 0.2,
    "Q4_0": 0.2,
}
"""By how a tensor is stored: about twice what normally distributed weights have."""

_STEP = 2.0**-25
"""Half of the smallest step of a 16-bit float, as which scales are stored."""
BLOCKS = {
    "F32": Block(32, 0.0),
    "F16": Block(32, 0.001, _STEP),
    "BF16": Block(32, 0.005),
    "Q8_0": Block(32, 0.006, 127 * _STEP),
    "Q6_K": Block(256, 0.04, 127 * 32 * _STEP),
    "Q5_K": Block(256, 0.08, 63 * 32 * _STEP),
    "Q5_1": Block(32, 0.05, 32 * _STEP),
    "Q5_0": Block(32, 0.08, 16 * _STEP),
    "Q4_K": Block(256, 0.15, 63 * 16 * _STEP),
    "Q4_1": Block(32, 0.09, 16 * _STEP),
    "Q4_0": Block(32, 0.15, 8 * _STEP),
}
"""By how a tensor is stored.

Of the largest weight of a block, rounding alone comes to 0.0005, 0.004 and 0.0042 for F16, BF16 and
Q8_0, 0.0625, 0.033, 0.067 and 0.125 for Q5_0, Q5_1, Q4_1 and Q4_0, whatever the weights; to 0.02,
0.05 and 0.09 at most for Q6_K, Q5_K and Q4_K in normal, heavy-tailed, sparse and trained weights.
"""


def tolerances(file: str) -> Tolerances:
    """Return the tolerances of a type of file, a key of ``FILE_TYPES``."""
    return Tolerances(
        weights=ERRORS, blocks=BLOCKS, divergence=DIVERGENCES[file], perplexity=RISES[file]
    )

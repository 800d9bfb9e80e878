"""How far a GGUF file of each type may be from its model."""

from llama_recipes_local.gguf_files.gguf_choices import DIVERGENCES, RISES
from llama_recipes_local.model_folders.read_back import Tolerances

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


def tolerances(file: str) -> Tolerances:
    """Return the tolerances of a type of file, a key of ``FILE_TYPES``."""
    return Tolerances(weights=ERRORS, divergence=DIVERGENCES[file], perplexity=RISES[file])

"""How far a GGUF file of each type may be from its model."""

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
DIVERGENCES = {
    "f32": 1e-6,
    "f16": 0.001,
    "bf16": 0.001,
    "q8_0": 0.01,
    "q6_k": 0.02,
    "q5_k_m": 0.05,
    "q4_k_m": 0.2,
    "q4_1": 0.3,
    "q4_0": 0.3,
}
"""By the type of the file, in nats a token."""
PERPLEXITIES = {
    "f32": 1e-4,
    "f16": 0.005,
    "bf16": 0.005,
    "q8_0": 0.01,
    "q6_k": 0.02,
    "q5_k_m": 0.05,
    "q4_k_m": 0.15,
    "q4_1": 0.25,
    "q4_0": 0.25,
}
"""By the type of the file, by which share it may rise."""


def tolerances(file: str) -> Tolerances:
    """Return the tolerances of a type of file, a key of ``FILE_TYPES``."""
    return Tolerances(weights=ERRORS, divergence=DIVERGENCES[file], perplexity=PERPLEXITIES[file])

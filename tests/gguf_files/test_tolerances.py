"""What the tolerances of each type let through, and what they do not."""

import pytest
import torch

from llama_recipes_local.certificates.layer_by_layer import Errors, relative_errors
from llama_recipes_local.gguf_files.tensor_types import stored
from llama_recipes_local.gguf_files.tolerances import BLOCKS, ERRORS

gguf = pytest.importorskip("gguf", reason="the package gguf is missing")


def errors(weight: torch.Tensor, kind: str, factor: float = 1.0) -> Errors:
    """Return the errors of a weight that is stored, the scale of a block multiplied."""
    packed = stored(weight, kind)
    found = torch.from_numpy(gguf.dequantize(packed, gguf.GGMLQuantizationType[kind]).copy())
    size = BLOCKS[kind].weights
    found[3, size : 2 * size] *= factor
    return relative_errors(found, weight, BLOCKS[kind])


WEIGHTS = {
    "normal": torch.randn(64, 512, generator=torch.Generator().manual_seed(0)),
    "heavy tails": torch.distributions.StudentT(3.0).sample((64, 512)) / 50,
    "an outlier in a row": torch.eye(64, 512) + torch.randn(64, 512) / 50,
    "small weights": torch.randn(64, 512) / 3000,
    "small rows": torch.randn(64, 512) * torch.logspace(-4, 0, 64)[:, None],
}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("kind", BLOCKS)
def test_rounding_is_within(kind: str, weights: str) -> None:
    found = errors(WEIGHTS[weights], kind)
    assert found.whole <= ERRORS[kind] and found.row <= 2 * ERRORS[kind]
    assert found.weight <= BLOCKS[kind].largest


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_scale_of_one_block_is_seen(kind: str) -> None:
    limit = BLOCKS[kind].largest
    found = errors(WEIGHTS["normal"], kind, 1 + max(2 * limit, 1e-4))
    assert found.whole <= ERRORS[kind] or kind == "F32"  # of all weights, it is not seen
    assert found.weight > limit


def test_each_type_has_both_tolerances() -> None:
    assert BLOCKS.keys() == ERRORS.keys()

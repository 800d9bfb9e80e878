"""K-quants are llama.cpp's own, on weights of any shape and size."""

import math
import platform

import numpy as np
import pytest
import torch

from llama_recipes_local.gguf_files.k_quants import (
    quantize_q4_k,
    quantize_q5_k,
    quantize_q6_k,
)

gguf = pytest.importorskip("gguf", reason="the package gguf is missing")
KINDS = {
    gguf.GGMLQuantizationType.Q4_K: (quantize_q4_k, 15),
    gguf.GGMLQuantizationType.Q5_K: (quantize_q5_k, 31),
    gguf.GGMLQuantizationType.Q6_K: (quantize_q6_k, 63),
}


def weights() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    normal = torch.randn(16, 512, generator=draw)
    outliers = normal * (1 + 30 * (torch.rand(16, 512, generator=draw) > 0.99))
    return {
        "normal": normal * 0.02,
        "outliers": outliers * 0.02,
        "positive": normal.abs() + 3,
        "negative": -normal.abs(),
        "large": normal * 1e3,
        "one in each row": torch.eye(256)[:16],
        "constant": torch.full((2, 256), 0.3),
        "bfloat16": normal.bfloat16().float(),  # equal weights of either sign
        "one block": normal[:1, :256],
        "for several threads": torch.randn(3, 256 * 500, generator=draw) * 0.02,
    }


def error(weight: torch.Tensor, packed: np.ndarray, kind: object) -> float:
    """Return the root of the mean squared error."""
    read = torch.from_numpy(gguf.dequantize(packed, kind))
    return math.sqrt(float((read - weight).double().square().mean()))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", weights())
def test_the_error_is_that_of_llama_cpp(name: str, kind: object) -> None:
    pytest.importorskip("xllamacpp", reason="llama.cpp's wheel is missing")
    from llama_cpp import quantized

    weight = weights()[name]
    ours = error(weight, KINDS[kind][0](weight), kind)
    theirs = error(weight, quantized(weight.numpy(), kind), kind)
    assert ours <= 1.02 * theirs + 1e-12


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere sums may be fused")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", weights())
def test_the_bytes_are_those_of_llama_cpp(name: str, kind: object) -> None:
    pytest.importorskip("xllamacpp", reason="llama.cpp's wheel is missing")
    from llama_cpp import quantized

    weight = weights()[name]
    assert np.array_equal(KINDS[kind][0](weight), quantized(weight.numpy(), kind))


@pytest.mark.parametrize("threads", [1, 3])
def test_torch_has_as_many_threads_as_before(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        quantize_q6_k(torch.ones(1, 256))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_error_is_below_a_step(kind: object) -> None:
    """Without llama.cpp: an even division of the range has steps of range / levels."""
    quantize, levels = KINDS[kind]
    weight = weights()["normal"]
    spans = weight.reshape(-1, 16).amax(1) - weight.reshape(-1, 16).amin(1)
    assert error(weight, quantize(weight), kind) < float(spans.mean()) / levels


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_zeros_stay_zeros(kind: object) -> None:
    weight = torch.zeros(3, 512)
    assert error(weight, KINDS[kind][0](weight), kind) == 0

"""bitsandbytes: are 4-bit weights dequantised correctly on this device?"""

from collections.abc import Iterator
from importlib.util import find_spec

import torch

from llama_recipes_local.commands.doctor.diagnosis import Finding, State
from llama_recipes_local.extras import install_extra
from llama_recipes_local.parallel import device_type

_NAME = "bitsandbytes"
_MOST_OFF = 0.12
"""Relative; 4 bits of normally distributed weights, in blocks of 64, are off by 0.09."""


def examine() -> Iterator[Finding]:
    """Quantise a matrix and read it again."""
    if find_spec(_NAME) is None:
        text = "not installed: --quantization, make qlora and 8-bit optimisers need it"
        yield Finding(_NAME, State.ABSENT, text, install_extra("quantization"))
        return
    device = device_type()
    try:
        off = _error(device)
    except Exception as error:  # its library may fail in any way on a device
        reason = (str(error) or type(error).__name__).splitlines()[0]
        fix = "install the version that your CUDA needs, see docs/install.md"
        yield Finding(_NAME, State.BROKEN, f"4 bits on {device}: {reason}", fix)
        return
    if off > _MOST_OFF:
        text = f"4 bits on {device} come back off by {off:.2f} of the weights"
        yield Finding(_NAME, State.BROKEN, text, install_extra("quantization"))
        return
    yield Finding(
        _NAME, State.WORKS, f"4 bits on {device} come back off by {off:.2f} of the weights"
    )


def _error(device: str) -> float:
    """Return how far a matrix in nf4 is from what it was made of, relative."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 256, generator=generator).to(device)
    packed, state = quantize_4bit(x, quant_type="nf4")
    return float((dequantize_4bit(packed, state) - x).norm() / x.norm())

"""Fused kernels for the memory-bound parts of a Llama: normalisation, rotary, SwiGLU, the loss.

The kernels are those of Liger (https://github.com/linkedin/Liger-Kernel), written in Triton for
CUDA. Each reads and writes its tensors once, where torch's operations do so several times. The loss
is computed from the last hidden states in chunks, so the logits, (batch * seq, vocabulary), never
exist as a whole; in float32 they are often the largest tensor of a step. The price: in training the
model returns no logits.
"""

import logging

from torch import nn

from llama_recipes_local.kernels.base import ModelKernel


def install(model: nn.Module) -> str:
    """Install the fused kernels in a Llama, and return in words which.

    liger-kernel's loss computes no gradient for a head if its hidden states need none. So it is
    left out where nothing before the head is trained.
    """
    from liger_kernel.transformers import apply_liger_kernel_to_llama

    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    only_head = bool(trained) and all(name.startswith("lm_head.") for name in trained)
    # it tries backends for other hardware first, and warns of each that is not there
    logging.getLogger("liger_kernel.backends").setLevel(logging.ERROR)
    apply_liger_kernel_to_llama(model=model, fused_linear_cross_entropy=not only_head)
    loss = ", but not the loss of a head alone" if only_head else " and the loss"
    return f"RMSNorm, rotary embedding, SwiGLU{loss}, by liger-kernel"


KERNEL = ModelKernel(
    title="Fused kernels",
    flag="use_fast_kernels",
    replaces="transformers' RMSNorm, rotary embedding, MLP and loss of a Llama",
    device="cuda",
    package="liger_kernel",
    extra="fast",
    install=install,
)

"""Fused kernels for what memory bounds in a Llama: normalisation, rotary, SwiGLU, the loss.

The kernels are Liger's (https://github.com/linkedin/Liger-Kernel), written in Triton, for CUDA.
``--use_fast_kernels`` asks for them; attention has a fast kernel anyway, see ``kernels.attention``.
"""

import logging
from importlib.util import find_spec

import transformers

from llama_recipes_local.parallel import device_type

INSTALL = "pip install 'llama-recipes-local[fast]'"


def use_fused_kernels(model: transformers.LlamaForCausalLM, body_is_trained: bool = True) -> None:
    """Put the fused kernels into a model where they can run, and say what was done.

    The loss of a training step is computed without the logits being held, so a model in training
    returns none.

    Args:
        model: the model.
        body_is_trained: whether anything before the head is. liger-kernel's loss finds no gradient
            for a head behind hidden states that need none, so it is left out there.
    """
    if device_type() != "cuda":
        print("--> Fused kernels: none, they run on CUDA only")
    elif find_spec("liger_kernel") is None:
        print(f"--> Fused kernels: none, liger-kernel is not installed; {INSTALL}")
    else:
        from liger_kernel.transformers import apply_liger_kernel_to_llama

        # it tries backends for other hardware first, and warns of each that is not there
        logging.getLogger("liger_kernel.backends").setLevel(logging.ERROR)
        apply_liger_kernel_to_llama(model=model, fused_linear_cross_entropy=body_is_trained)
        loss = " and the loss" if body_is_trained else ", but not the loss of a head alone"
        print(f"--> Fused kernels: RMSNorm, rotary embedding, SwiGLU{loss}, by liger-kernel")

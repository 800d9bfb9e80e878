"""The kernels that flags choose: one line each."""

from torch import nn

from llama_recipes_local import configs
from llama_recipes_local.configs.training import AUTO
from llama_recipes_local.kernels import attention, frozen, fused
from llama_recipes_local.kernels.base import AttentionKernel, ModelKernel

ATTENTION: dict[str, AttentionKernel] = {
    kernel.name: kernel
    for kernel in (
        attention.KERNEL,
        AttentionKernel(
            name="sdpa", replaces="attention, by torch with a mask", default_for=("mllama",)
        ),
        AttentionKernel(name="eager", replaces="attention, as matrix products"),
        AttentionKernel(
            name="flash_attention_2",
            replaces="attention, by flash-attn",
            device="cuda",
            package="flash_attn",
            extra="flash",
        ),
    )
}
"""The values of ``--attn_implementation``, but for "auto"."""
MODEL_KERNELS: list[ModelKernel] = [fused.KERNEL, frozen.KERNEL]


def register_attention() -> None:
    """Make this package's attention implementations known to transformers."""
    for kernel in ATTENTION.values():
        if kernel.register is not None:
            kernel.register()


def choose_attention(asked: str, model_type: str) -> str:
    """Return the attention implementation for a type of model.

    Args:
        asked: the value of ``--attn_implementation``.
        model_type: as in the model's ``config.json``.
    """
    if asked != AUTO:
        return asked
    return next(name for name, kernel in ATTENTION.items() if model_type in kernel.default_for)


def install_model_kernels(model: nn.Module, train: configs.train_config) -> None:
    """Install the kernels that flags ask for in a loaded model, whose frozen weights are known."""
    for kernel in MODEL_KERNELS:
        if getattr(train, kernel.flag):
            kernel.apply(model)


def print_fallbacks(model: nn.Module, train: configs.train_config) -> None:
    """Print which layers of an adapted model the kernels do not compute, and why."""
    if not getattr(train, frozen.KERNEL.flag) or frozen.KERNEL.unavailable():
        return
    for reason, number in frozen.fallbacks(model).items():
        print(f"--> {frozen.KERNEL.title}: not {number} linear layers, {reason}")

"""The automatic choices of ``sft.py`` for flags that are not given, each with its reason."""

from dataclasses import dataclass
from pathlib import Path

import torch

from llama_recipes_local.commands.sft.command_line import Flag
from llama_recipes_local.commands.sft.flags import Arguments
from llama_recipes_local.model_folders.model_config import read_config
from llama_recipes_local.parallel import device_type, launched_by_torchrun


@dataclass(frozen=True)
class Choice:
    """A flag that was not given, and the value that was chosen for it."""

    flag: Flag
    why: str

    def __str__(self) -> str:
        return f"--> {self.flag}: {self.why}"


def choose(options: Arguments, given: set[str]) -> list[Choice]:
    """Choose values for flags that are not given.

    Args:
        options: the value of every flag.
        given: the names of those that the user gave.
    """
    on_cuda = device_type() == "cuda" and not options.use_cpu
    compute = _compute(options, given, on_cuda)
    return [
        *_device(options),
        *_ranks(given),
        *compute,
        *_weights(options, given, on_cuda, compute),
        *_length(options, given),
    ]


def _device(options: Arguments) -> list[Choice]:
    # without it, accelerate lets each rank of torchrun train by itself
    if options.use_cpu or device_type() == "cuda":
        return []
    return [Choice(Flag("use_cpu", ("true",)), "this machine has no CUDA device")]


def _ranks(given: set[str]) -> list[Choice]:
    if "ddp_find_unused_parameters" in given or not launched_by_torchrun():
        return []
    why = "every trainable parameter is used in each step; a search for unused ones takes time"
    return [Choice(Flag("ddp_find_unused_parameters", ("false",)), why)]


def _compute(options: Arguments, given: set[str], on_cuda: bool) -> list[Choice]:
    if options.fp16 or "bf16" in given:
        return []
    off = Flag("bf16", ("false",))
    if not on_cuda:
        return [Choice(off, "on CPU training is in float32")]
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return [
            Choice(Flag("bf16", ("true",)), "bfloat16 is this device's fastest mixed precision")
        ]
    why = "this device does not support bfloat16"
    return [Choice(off, why), Choice(Flag("fp16", ("true",)), why)]


def _weights(
    options: Arguments, given: set[str], on_cuda: bool, compute: list[Choice]
) -> list[Choice]:
    if "dtype" in given or not (options.use_peft and on_cuda):
        return []
    half = options.fp16 or any(choice.flag.name == "fp16" for choice in compute)
    if not half and options.bf16 is False:
        return []
    why = "the frozen weights are only used in this dtype"
    return [Choice(Flag("dtype", ("float16" if half else "bfloat16",)), why)]


def _length(options: Arguments, given: set[str]) -> list[Choice]:
    positions = model_positions(options.model_name_or_path)
    if "max_length" in given or positions is None or positions >= options.max_length:
        return []
    why = f"the model has {positions} positions (max_position_embeddings)"
    return [Choice(Flag("max_length", (str(positions),)), why)]


def model_positions(folder: str | None) -> int | None:
    """Return the ``max_position_embeddings`` of a model; None if its ``config.json`` has none."""
    positions = read_config(Path(folder or "").expanduser()).get("max_position_embeddings")
    return positions if isinstance(positions, int) else None

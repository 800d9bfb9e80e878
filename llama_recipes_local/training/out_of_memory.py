"""The message when a device is out of memory: which settings of a run would need less."""

from collections.abc import Iterator
from pathlib import Path

import torch

from llama_recipes_local.configs.training import AUTO, FULL, KEEP, OFFLOAD, SELECTIVE
from llama_recipes_local.kernels import fused
from llama_recipes_local.run import Run
from llama_recipes_local.run.weight_bits import quantized_bits


class StoppedOutOfMemoryError(torch.OutOfMemoryError):
    """A run that is out of memory, and what is saved of it.

    Attributes:
        checkpoint: the newest one; None if there is none.
        validating: whether memory ran out in a validation.
    """

    def __init__(self, said: str, checkpoint: Path | None, validating: bool = False) -> None:
        super().__init__(said)
        self.checkpoint = checkpoint
        self.validating = validating


SHORT = 1024
RECOMPUTED = "activations are recomputed in the backward pass"


def out_of_memory_message(run: Run, error: BaseException) -> str:
    """Return torch's own message, and which of the run's settings could change.

    Args:
        run: the run that ended.
        error: torch's ``OutOfMemoryError``; the first sentences of its message have the figures.
    """
    lines = [f"      {flags}  ({effect})" for flags, effect in _fixes(run)]
    saved = ""
    if isinstance(error, StoppedOutOfMemoryError):
        if error.validating:
            lines = [f"      {flags}  ({effect})" for flags, effect in _fixes_of_validation(run)]
        if error.checkpoint is not None:
            saved = (
                f"   saved in {error.checkpoint}: resume with the same command, one of these, and "
                "--resume_from_checkpoint auto\n"
            )
    hint = "any of these needs less memory; the cheapest comes first"
    fixes = "\n".join(lines)
    return f"stopped: {figures(str(error))}\n{saved}   fix: {hint}\n{fixes}"


def _fixes_of_validation(run: Run) -> Iterator[tuple[str, str]]:
    """Yield flags that a validation needs less memory with; it keeps nothing for gradients."""
    if run.train.val_batch_size > 1:
        yield "--val_batch_size 1", "the same rows in smaller batches"
    yield "--run_validation False", "nothing is validated"
    yield from (fix for fix in _fixes(run) if "activation" not in fix[1] + fix[0])


def figures(said: str) -> str:
    """Return the sentences with figures of what torch says."""
    return ". ".join(said.split(". ")[:3])


def _fixes(run: Run) -> Iterator[tuple[str, str]]:
    """Yield flags that the run does not use yet, and their effect."""
    train = run.train
    if not train.use_fast_kernels and not fused.KERNEL.unavailable():
        yield "--use_fast_kernels", "does not materialise the logits of a batch"
    yield from _fixes_of_activations(run)
    batch, steps = train.batch_size_training, train.gradient_accumulation_steps
    if batch > 1:
        smaller = f"--batch_size_training 1 --gradient_accumulation_steps {batch * steps}"
        yield smaller, "the same global batch in smaller micro-batches"
    if not run.is_sharded:
        yield (
            "torchrun --nproc_per_node N finetuning.py --enable_fsdp",
            "weights sharded over N devices",
        )
    if not train.use_peft:
        yield "--use_peft", "gradients and optimiser state of an adapter only"
    elif quantized_bits(train) is None:
        yield "--quantization 4bit", "weights in a quarter of the memory"
    if train.context_length > SHORT:
        yield f"--context_length {train.context_length // 2}", "longer rows are truncated"


def _fixes_of_activations(run: Run) -> Iterator[tuple[str, str]]:
    """Yield the next flag of recomputation; with fast kernels inputs are offloaded anyway."""
    train, policy = run.train, run.train.activation_policy
    if policy in (KEEP, SELECTIVE):
        yield f"--activation_policy {FULL}", RECOMPUTED
    elif train.enable_fsdp and not run.fsdp.fsdp_activation_checkpointing:
        yield "--fsdp_activation_checkpointing True", RECOMPUTED
    elif not train.enable_fsdp and not train.gradient_checkpointing:
        yield "--gradient_checkpointing", RECOMPUTED
    elif policy == FULL or (policy == AUTO and not train.use_fast_kernels):
        yield f"--activation_policy {OFFLOAD}", "inputs of layers are kept in host memory"

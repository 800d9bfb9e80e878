"""The message when a device is out of memory: which settings would need less."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
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


OTHERS = re.compile(
    r"(?<=DefaultCPUAllocator: )[^.]*|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
)
"""What the CPU's allocator, CUDA's driver and cuBLAS say where torch's own on CUDA raises."""

SHORT = 1024
RECOMPUTED = "activations are recomputed in the backward pass"


def out_of_memory_message(run: Run, error: BaseException) -> str:
    """Return torch's own message, and which of the run's settings could change.

    Args:
        run: the run that ended.
        error: torch's ``OutOfMemoryError``; the first sentences of its message have the figures.
    """
    stopped = error if isinstance(error, StoppedOutOfMemoryError) else None
    resumable = [*_fixes_of_passes(run, bool(stopped and stopped.validating)), *_sharding(run)]
    fixes = [*resumable, *_fixes_of_method(run)]
    hint, saved = "any of these needs less memory; the cheapest comes first", ""
    if stopped and stopped.checkpoint:
        saved = f"   saved in {stopped.checkpoint}\n"
        if resumable:
            fixes = resumable
            hint = "resume with --resume_from_checkpoint auto and one of these, the cheapest first"
    lines = "\n".join(f"      {flags}  ({effect})" for flags, effect in fixes)
    return f"stopped: {figures(str(error))}\n{saved}   fix: {hint}\n{lines}"


@contextmanager
def told_apart() -> Iterator[None]:
    """Raise torch's ``OutOfMemoryError`` for what other allocators raise inside the block."""
    try:
        yield
    except RuntimeError as error:
        found = OTHERS.search(str(error))
        if found is None or isinstance(error, torch.OutOfMemoryError):
            raise
        raise torch.OutOfMemoryError(f"out of memory: {found[0]}") from None


def figures(said: str) -> str:
    """Return the sentences with figures from torch's message."""
    return ". ".join(said.split(". ")[:3])


def _fixes_of_passes(run: Run, validating: bool) -> Iterator[tuple[str, str]]:
    """Yield flags that would save memory without changing any number, and their effect.

    Args:
        run: the run that ended.
        validating: in a validation, which keeps nothing for gradients.
    """
    train = run.train
    if validating:
        if train.val_batch_size > 1:
            yield "--val_batch_size 1", "the same rows in smaller batches"
        yield "--run_validation False", "nothing is validated"
        return
    if not train.use_fast_kernels and not fused.KERNEL.unavailable():
        yield "--use_fast_kernels", "does not materialise the logits of a batch"
    yield from _fixes_of_activations(run)
    batch, steps = train.batch_size_training, train.gradient_accumulation_steps
    if batch > 1:
        smaller = f"--batch_size_training 1 --gradient_accumulation_steps {batch * steps}"
        yield smaller, "the same global batch in smaller micro-batches"


def _sharding(run: Run) -> Iterator[tuple[str, str]]:
    if run.train.enable_fsdp and not run.is_sharded:
        yield "--sharding_strategy FULL_SHARD", "weights sharded over the devices"
    elif not run.is_sharded:
        yield (
            "torchrun --nproc_per_node N finetuning.py --enable_fsdp",
            "weights sharded over N devices",
        )


def _fixes_of_method(run: Run) -> Iterator[tuple[str, str]]:
    """Yield flags that would save memory but change what is trained."""
    train = run.train
    if not train.use_peft:
        yield "--use_peft", "gradients and optimiser state of an adapter only"
    elif quantized_bits(train) is None:
        yield "--quantization 4bit", "weights in a quarter of the memory"
    if train.context_length > SHORT:
        yield f"--context_length {train.context_length // 2}", "longer rows are truncated"


def _fixes_of_activations(run: Run) -> Iterator[tuple[str, str]]:
    """Yield the next flag of recomputation; with fast kernels inputs are offloaded already."""
    train, policy = run.train, run.train.activation_policy
    if policy in (KEEP, SELECTIVE):
        yield f"--activation_policy {FULL}", RECOMPUTED
    elif train.enable_fsdp and not run.fsdp.fsdp_activation_checkpointing:
        yield "--fsdp_activation_checkpointing True", RECOMPUTED
    elif not train.enable_fsdp and not train.gradient_checkpointing:
        yield "--gradient_checkpointing", RECOMPUTED
    elif policy == FULL or (policy == AUTO and not train.use_fast_kernels):
        yield f"--activation_policy {OFFLOAD}", "inputs of layers are kept in host memory"

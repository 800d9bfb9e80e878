"""The message when a device is out of memory: which settings of a run would need less."""

from collections.abc import Iterator

from llama_recipes_local.configs.training import AUTO, FULL, KEEP, OFFLOAD, SELECTIVE
from llama_recipes_local.kernels import fused
from llama_recipes_local.run import Run
from llama_recipes_local.run.weight_bits import quantized_bits

SHORT = 1024
RECOMPUTED = "activations are recomputed in the backward pass"


def out_of_memory_message(run: Run, error: BaseException) -> str:
    """Return torch's own message, and which of the run's settings could change.

    Args:
        run: the run that ended.
        error: torch's ``OutOfMemoryError``; the first sentences of its message have the figures.
    """
    figures = ". ".join(str(error).split(". ")[:3])
    fixes = "\n".join(f"      {flags}  ({effect})" for flags, effect in _fixes(run))
    hint = "any of these needs less memory; the cheapest comes first"
    return f"stopped: {figures}\n   fix: {hint}\n{fixes}"


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

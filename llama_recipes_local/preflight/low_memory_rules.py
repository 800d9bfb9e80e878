"""Rules for ``--low_cpu_fsdp``: nothing may need the weights before they are sharded."""

from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.configs.trained_part import trains_all
from llama_recipes_local.errors import Problem
from llama_recipes_local.preflight.model_sizes import model_config
from llama_recipes_local.run import Run
from llama_recipes_local.run.weight_bits import quantized_bits, quantized_by

FLAG = "--low_cpu_fsdp"
LEAVE_OUT = f"leave {FLAG} out"


def check_low_memory(run: Run) -> list[Problem]:
    """Return flags that cannot be combined with reading only each rank's shard of the weights."""
    if not run.train.low_cpu_fsdp:
        return []
    if not run.train.enable_fsdp:
        why = "it lets each rank of FSDP read only its shard of the weights"
        return [Problem(f"{FLAG} without --enable_fsdp", why, f"add --enable_fsdp, or {LEAVE_OUT}")]
    return [
        *_quantized(run),
        *_weights_needed_early(run),
    ]


def check_low_memory_model(run: Run) -> list[Problem]:
    """Find a model whose embeddings are resized before each rank reads its shard of them."""
    return _model(run) if run.train.low_cpu_fsdp and run.train.enable_fsdp else []


def _quantized(run: Run) -> list[Problem]:
    if quantized_bits(run.train) is None:
        return []
    return [
        Problem(
            f"{FLAG} with {quantized_by(run)}",
            "weights are quantised one at a time on their device, so the host's memory stays low "
            "without it",
            LEAVE_OUT,
        )
    ]


def _weights_needed_early(run: Run) -> list[Problem]:
    """Find what is initialised from the weights before they are read."""
    early = {}
    if run.peft is not None:
        for flag in METHODS[run.train.peft_method].reads_weights(run.peft):
            early[flag] = "is initialised from the weights"
    if run.train.fp8 and not trains_all(run.train):
        early["--fp8"] = "is made of the weights"
    if run.train.train_new_tokens:
        early["--train_new_tokens"] = "starts from the embedding's rows"
    if run.train.top_layers:
        early["--top_layers"] = "adds layers that the model's files do not have"
    return [
        Problem(f"{FLAG} with {flag}", f"it {why}, which are read only later", LEAVE_OUT)
        for flag, why in early.items()
    ]


def _model(run: Run) -> list[Problem]:
    config = model_config(run)
    if config.get("model_type") == "mllama":
        what = f"{FLAG} with a vision model"
        return [Problem(what, "only text models can be loaded this way", LEAVE_OUT)]
    from llama_recipes_local.models.loading import run_tokenizer  # which imports torch
    from llama_recipes_local.preflight.model import check_tokenizer

    rows = config.get("vocab_size")
    if not isinstance(rows, int) or check_tokenizer(run):
        return []
    tokens = len(run_tokenizer(run))
    if tokens <= rows:
        return []
    return [
        Problem(
            f"{FLAG} with a tokenizer of {tokens} tokens and a model of {rows}",
            "the embeddings are resized before they are read",
            LEAVE_OUT,
        )
    ]

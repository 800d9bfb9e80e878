"""The setting that a run's configurations ask for."""

from dataclasses import replace
from typing import Any

from llama_recipes_local import configs
from llama_recipes_local.configs.dtypes import compute_dtype, weight_dtype
from llama_recipes_local.configs.trained_part import trains_all
from llama_recipes_local.configs.training import ANSWERED_AT_A_TIME, AUTO, LONGEST_ANSWER
from llama_recipes_local.fields import word_of
from llama_recipes_local.planning.setting import (
    ALONE,
    DOCUMENTS,
    FROZEN,
    FULL,
    FUSED,
    HYBRID_SHARD,
    KEEP,
    MASKED,
    OFFLOAD,
    PADDED,
    PLAIN,
    SCORED,
    Adapter,
    Batch,
    Ranks,
    Setting,
    Validation,
    Weights,
)
from llama_recipes_local.planning.shapes import ENDS, LINEAR, Shape
from llama_recipes_local.planning.tokens import BYTES_A_TOKEN, DataSize, bytes_of
from llama_recipes_local.run import Run


def setting(
    run: Run,
    shape: Shape,
    world: int = 1,
    hosts: int = 1,
    on_cpu: bool = False,
    packed: int = 0,
) -> Setting:
    """Return what training takes as it is asked for.

    Args:
        run: its configurations.
        shape: of the model.
        world: ranks that train together.
        hosts: on how many hosts.
        on_cpu: whether it is trained on CPUs, not on CUDA devices.
        packed: bits of weights that the model's folder holds packed; 0 if it does not.
    """
    train, fsdp = run.train, run.fsdp
    ranks = Ranks(
        world if train.enable_fsdp else 1,
        hosts if train.enable_fsdp else 1,
        strategy(fsdp) if train.enable_fsdp or fsdp.hsdp else ALONE,
        fsdp.sharding_group_size,
        bool(train.enable_fsdp and fsdp.fsdp_cpu_offload),
    )
    batch = Batch(
        train.batch_size_training, train.context_length, train.gradient_accumulation_steps
    )
    if train.batching_strategy != "packing":
        batch = replace(batch, document=train.context_length)
    adapter = _adapter(run, shape)
    return Setting(
        shape,
        _weights(run, shape, on_cpu, packed),
        adapter,
        batch,
        ranks,
        policy(train, fsdp, on_cpu),
        PLAIN if on_cpu else _kernels(run, adapter, packed),
        fsdp.optimizer.lower(),
        _attention(train),
        flash=train.attn_implementation == "flash_attention_2",
        on_cpu=on_cpu,
        validation=_validation(run, batch.document),
        element=4.0 if compute_dtype(train, fsdp, on_cpu) == "float32" else 2.0,
    )


def with_data(asked: Setting, training: DataSize | None, held_out: DataSize | None) -> Setting:
    """Return a setting with lengths and labels from the data, and at most its whole validation."""
    if training is not None:
        rows, tokens = max(training.rows, 1), max(training.tokens, 1)
        share = training.label_tokens / tokens
        batch = replace(asked.batch, document=max(tokens // rows, 1), labelled=share)
        asked = replace(asked, batch=batch)
    if held_out is not None and asked.validation is not None:
        tokens = min(asked.validation.tokens, held_out.tokens)
        asked = replace(asked, validation=replace(asked.validation, tokens=tokens))
    return asked


def strategy(fsdp: configs.fsdp_config) -> str:
    """Return the strategy that FSDP shards by."""
    word = word_of(fsdp, "sharding_strategy")
    return HYBRID_SHARD if fsdp.hsdp or word == "_HYBRID_SHARD_ZERO2" else word


def policy(train: configs.train_config, fsdp: configs.fsdp_config, on_cpu: bool = False) -> str:
    """Return what is kept of activations, as ``policies.activation_policy`` decides."""
    if train.activation_policy != AUTO:
        return FULL if on_cpu and train.activation_policy == OFFLOAD else train.activation_policy
    flag = fsdp.fsdp_activation_checkpointing if train.enable_fsdp else None
    recomputes = train.gradient_checkpointing if flag is None else flag
    if not recomputes:
        return KEEP
    return OFFLOAD if train.use_fast_kernels and not on_cpu else FULL


def _attention(train: configs.train_config) -> str:
    """Return how rows are attended."""
    named = {"sdpa": MASKED, "eager": SCORED, "flash_attention_2": DOCUMENTS}
    own = DOCUMENTS if train.batching_strategy == "packing" else PADDED
    return named.get(train.attn_implementation, own)


def bits(train: configs.train_config) -> int:
    """Return 4, 8 or 0, as ``--quantization`` says."""
    return {"4bit": 4, "8bit": 8, True: 8}.get(train.quantization or "", 0)


def _validation(run: Run, document: int) -> Validation | None:
    """Return what a validation computes: rows like those of training, as far as there is data."""
    train = run.train
    if not train.run_validation:
        return None
    tokens = train.val_batch_size * train.context_length
    size = bytes_of(run.dataset, "test") if run.dataset is not None else None
    if size is not None:
        tokens = min(tokens, size // BYTES_A_TOKEN)
    rows = min(train.eval_generation_rows, ANSWERED_AT_A_TIME)
    return Validation(tokens, rows * (document + LONGEST_ANSWER))


def _weights(run: Run, shape: Shape, on_cpu: bool, packed: int) -> Weights:
    train = run.train
    wide = weight_dtype(train, on_cpu) == "float32"
    trained, layers = _trained(train, shape)
    return Weights(
        trained,
        4 if wide and not run.fsdp.pure_bf16 else 2,
        packed or bits(train),
        bool(packed) or run.quantization.use_double_quant,  # scales of as many bits
        train.fp8 and not trains_all(train),
        train.fp8 and trains_all(train),
        layers,
    )


def _trained(train: configs.train_config, shape: Shape) -> tuple[int, int | None]:
    """Return how many of the model's weights are trained, and the layers with a gradient."""
    if train.use_peft:
        return 0, None
    if train.top_layers:
        return train.top_layers * shape.hidden**2, 0
    if train.train_only == "lm_head":
        return shape.head, 0
    kind, _, number = train.train_only.partition(":")
    if kind == "last" and number.isdigit():
        layers = min(int(number), shape.layers)
        return layers * shape.layer, layers
    frozen = min(train.num_freeze_layers, shape.layers) if train.freeze_layers else 0
    return shape.weights - frozen * shape.layer, None


def _adapter(run: Run, shape: Shape) -> Adapter | None:
    train = run.train
    peft: Any = run.peft  # of any method
    if not train.use_peft or peft is None:
        return None
    size = 2 if run.fsdp.pure_bf16 else 4
    if train.peft_method == "lora":
        targets = LINEAR if peft.target_modules == "all-linear" else peft.target_modules
        named = frozenset(name.rpartition(".")[2] for name in targets)
        drops, rank = bool(peft.lora_dropout), peft.r
        return Adapter("lora", rank, named & {*LINEAR, *ENDS}, size, drops, peft.use_dora)
    if train.peft_method == "prefix":
        return Adapter("prefix", bytes=size, tokens=peft.num_virtual_tokens)
    layers = min(getattr(peft, "adapter_layers", 0), shape.layers)
    tokens = getattr(peft, "adapter_len", 0)
    return Adapter("llama_adapter", bytes=size, tokens=tokens, layers=layers)


def _kernels(run: Run, adapter: Adapter | None, packed: int) -> str:
    train = run.train
    if not train.use_fast_kernels or train.dtype == "float32":
        return PLAIN
    if adapter is None:  # weights in float32, which autocast casts, are left to liger-kernel
        return FUSED if train.use_fp16 else FROZEN
    return FUSED if adapter.dora or packed else FROZEN

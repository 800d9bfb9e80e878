"""The setting that a run's configurations ask for, and the flags that change it.

``Asked`` is made of a ``Run`` by preflight, and of flags alone by ``plan``, which imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from llama_recipes_local import configs
from llama_recipes_local.configs.training import AUTO
from llama_recipes_local.fields import LibraryType, convert, defaults, field_names
from llama_recipes_local.planning.setting import (
    ALONE,
    FROZEN,
    FULL,
    FUSED,
    HYBRID_SHARD,
    KEEP,
    OFFLOAD,
    PLAIN,
    Adapter,
    Batch,
    Ranks,
    Setting,
    Weights,
)
from llama_recipes_local.planning.shapes import LINEAR, Shape


class RunLike(Protocol):
    """What is read of a ``Run``."""

    train: configs.train_config
    fsdp: configs.fsdp_config
    quantization: configs.quantization_config
    peft: Any  # a configuration of any adapter method


@dataclass(frozen=True)
class Asked:
    """Configurations, with values of torch's types as their words.

    Attributes:
        train: ``train_config``.
        fsdp: the fields of ``fsdp_config``.
        quantization: the fields of ``quantization_config``.
        peft: the configuration of the adapter; None without one.
    """

    train: configs.train_config
    fsdp: Mapping[str, Any]
    quantization: Mapping[str, Any]
    peft: Any = None

    @classmethod
    def by_run(cls, run: RunLike) -> "Asked":
        """Return what a run asks for."""
        fsdp = {name: getattr(run.fsdp, name) for name in field_names(run.fsdp)}
        fsdp["sharding_strategy"] = run.fsdp.sharding_strategy.name
        quantization = {"use_double_quant": run.quantization.use_double_quant}
        return cls(run.train, fsdp, quantization, run.peft)


def words_of(config: type, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's values as flags set them; of a library's type, the words.

    Raises:
        ValueError: if a value cannot mean its field's type.
    """
    found = defaults(config)
    kinds = config.__annotations__
    for flag, value in flags.items():
        owner, _, name = flag.rpartition(".")
        if name not in found or owner not in ("", config.__name__):
            continue
        kind = getattr(kinds[name], "__origin__", kinds[name])
        of_library = isinstance(kind, LibraryType)
        found[name] = str(value).rpartition(".")[2] if of_library else convert(value, kind)
    return found


def setting(asked: Asked, shape: Shape, world: int = 1, hosts: int = 1) -> Setting:
    """Return what training takes as it is asked for, on a CUDA device.

    Args:
        asked: the configurations.
        shape: of the model.
        world: ranks that train together.
        hosts: on how many hosts.
    """
    train, fsdp = asked.train, asked.fsdp
    strategy = fsdp["sharding_strategy"] if train.enable_fsdp else ALONE
    if fsdp["hsdp"]:
        strategy = HYBRID_SHARD
    strategy = HYBRID_SHARD if strategy == "_HYBRID_SHARD_ZERO2" else strategy
    ranks = Ranks(
        world if train.enable_fsdp else 1,
        hosts if train.enable_fsdp else 1,
        strategy,
        fsdp["sharding_group_size"],
        bool(train.enable_fsdp and fsdp["fsdp_cpu_offload"]),
    )
    batch = Batch(
        train.batch_size_training, train.context_length, train.gradient_accumulation_steps
    )
    if train.batching_strategy != "packing":
        batch = replace(batch, document=train.context_length)
    adapter = _adapter(asked, shape)
    return Setting(
        shape,
        _weights(asked, shape),
        adapter,
        batch,
        ranks,
        policy(train, fsdp),
        _kernels(asked, adapter),
        fsdp["optimizer"].lower(),
        train.attn_implementation in ("auto", "documents", "flash_attention_2"),
    )


def policy(train: configs.train_config, fsdp: Mapping[str, Any]) -> str:
    """Return what becomes of activations, as ``policies.activation_policy`` has it on CUDA."""
    if train.activation_policy != AUTO:
        return train.activation_policy
    flag = fsdp["fsdp_activation_checkpointing"] if train.enable_fsdp else None
    recomputes = train.gradient_checkpointing if flag is None else flag
    if not recomputes:
        return KEEP
    return OFFLOAD if train.use_fast_kernels else FULL


def bits(train: configs.train_config) -> int:
    """Return 4, 8 or 0, as ``--quantization`` says."""
    return {"4bit": 4, "8bit": 8, True: 8}.get(train.quantization or "", 0)


def _weights(asked: Asked, shape: Shape) -> Weights:
    train = asked.train
    wide = train.dtype == "float32" or (
        train.dtype == "auto" and train.use_fp16 and not train.use_peft
    )
    trained, layers = _trained(train, shape)
    return Weights(
        trained,
        4 if wide and not asked.fsdp["pure_bf16"] else 2,
        bits(train),
        bool(asked.quantization["use_double_quant"]),
        train.fp8,
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


def _adapter(asked: Asked, shape: Shape) -> Adapter | None:
    train, peft = asked.train, asked.peft
    if not train.use_peft or peft is None:
        return None
    size = 2 if asked.fsdp["pure_bf16"] else 4
    if train.peft_method == "lora":
        targets = LINEAR if peft.target_modules == "all-linear" else peft.target_modules
        named = frozenset(name.rpartition(".")[2] for name in targets)
        drops, rank = bool(peft.lora_dropout), peft.r
        return Adapter("lora", rank, named & set(LINEAR), size, drops, peft.use_dora)
    if train.peft_method == "prefix":
        return Adapter("prefix", bytes=size, tokens=peft.num_virtual_tokens)
    layers = min(getattr(peft, "adapter_layers", 0), shape.layers)
    tokens = getattr(peft, "adapter_len", 0)
    return Adapter("llama_adapter", bytes=size, tokens=tokens, layers=layers)


def _kernels(asked: Asked, adapter: Adapter | None) -> str:
    train = asked.train
    if not train.use_fast_kernels or train.dtype == "float32":
        return PLAIN
    return FUSED if adapter is None or adapter.dora else FROZEN

"""``fsdp_config``: upstream's fields and defaults."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from torch.distributed.fsdp import ShardingStrategy, StateDictType

from llama_recipes_local._upstream import load
from llama_recipes_local.fields import AT_LEAST_0, WITH_FSDP, Choices, Needs, Resume

if TYPE_CHECKING:
    from llama_recipes_local._vendor.llama_recipes.configs.fsdp import fsdp_config as upstream
else:
    upstream = load("configs.fsdp").fsdp_config


@dataclass
class fsdp_config(upstream):
    """How a model is trained on several ranks; ``pure_bf16`` and ``optimizer`` hold on one too."""

    mixed_precision: Annotated[bool, Resume.FREE] = upstream.mixed_precision
    """Mixed precision on CUDA: compute in bfloat16, or in float16 with ``use_fp16``."""

    # the identity of a run has train_config's
    use_fp16: Annotated[bool, Resume.FREE] = upstream.use_fp16
    """Compute in float16 with a gradient scaler instead of in bfloat16."""

    sharding_strategy: Annotated[ShardingStrategy, Resume.FREE, WITH_FSDP] = (
        upstream.sharding_strategy
    )
    """FULL_SHARD, SHARD_GRAD_OP, NO_SHARD (DDP) or HYBRID_SHARD."""

    hsdp: Annotated[bool, Resume.FREE, WITH_FSDP] = upstream.hsdp
    """HYBRID_SHARD with group sizes of your own."""

    sharding_group_size: Annotated[int, AT_LEAST_0, Resume.FREE, Needs("hsdp")] = (
        upstream.sharding_group_size
    )
    """Ranks that share one copy of the model, with ``hsdp``."""

    replica_group_size: Annotated[int, AT_LEAST_0, Resume.FREE, Needs("hsdp")] = (
        upstream.replica_group_size
    )
    """Copies of the model, with ``hsdp``."""

    checkpoint_type: Annotated[StateDictType, Resume.FREE, WITH_FSDP] = upstream.checkpoint_type
    """How a full model is saved: SHARDED_STATE_DICT or FULL_STATE_DICT, a Hugging Face folder."""

    fsdp_activation_checkpointing: Annotated[bool, Resume.FREE, WITH_FSDP] = (
        upstream.fsdp_activation_checkpointing
    )
    """``gradient_checkpointing`` with FSDP."""

    fsdp_cpu_offload: Annotated[bool, Resume.FREE, WITH_FSDP] = upstream.fsdp_cpu_offload
    """Keep weights, gradients and optimiser state in host memory."""

    pure_bf16: Annotated[bool, Resume.METHOD] = upstream.pure_bf16
    """Hold what is trained in bfloat16 too."""

    optimizer: Annotated[
        str,
        Choices(source="optimization.optimizers:OPTIMIZERS", any_case=True),
        Resume.METHOD,
    ] = upstream.optimizer
    """"AdamW", "anyprecision", "adamw_8bit", "paged_adamw" or "paged_adamw_8bit"."""

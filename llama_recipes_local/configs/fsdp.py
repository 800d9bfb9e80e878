"""``fsdp_config``: upstream's fields and defaults.

It is not upstream's class, because that imports torch. torch's enumerations are imported when a
field that needs one is read; as in upstream's module, they are names of this module too.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from llama_recipes_local._upstream import fall_back
from llama_recipes_local.configs.optimizer_names import OPTIMIZERS
from llama_recipes_local.fields import (
    AT_LEAST_0,
    AUTOMATIC,
    WITH_FSDP,
    Choices,
    LibraryDefault,
    LibraryType,
    Needs,
    Resume,
    show_defaults,
)

STRATEGIES = ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD", "_HYBRID_SHARD_ZERO2")
STATE_DICTS = ("FULL_STATE_DICT", "LOCAL_STATE_DICT", "SHARDED_STATE_DICT")
"""torch's, so that flags are read without it."""

if TYPE_CHECKING:
    from torch.distributed.fsdp import ShardingStrategy as _Sharding
    from torch.distributed.fsdp import StateDictType as _StateDict
else:
    _FSDP = "torch.distributed.fsdp"
    _Sharding = LibraryType(_FSDP, "ShardingStrategy", STRATEGIES)
    _StateDict = LibraryType(_FSDP, "StateDictType", STATE_DICTS)


@dataclass
class fsdp_config:
    """How a model is trained on several ranks; ``pure_bf16`` and ``optimizer`` apply to one too."""

    mixed_precision: Annotated[bool, Resume.FREE] = True
    """Mixed precision on CUDA: compute in bfloat16, or in float16 with ``use_fp16``."""

    # the identity of a run has train_config's
    use_fp16: Annotated[bool, Resume.FREE] = False
    """Compute in float16 with a gradient scaler instead of in bfloat16."""

    sharding_strategy: Annotated[_Sharding, Resume.FREE, WITH_FSDP, AUTOMATIC] = field(
        default_factory=LibraryDefault(_Sharding, "FULL_SHARD")
    )
    """FULL_SHARD, SHARD_GRAD_OP, NO_SHARD (DDP), HYBRID_SHARD, or "auto": the fastest that fits."""

    hsdp: Annotated[bool, Resume.FREE, WITH_FSDP] = False
    """Use the group sizes below for ``sharding_strategy`` HYBRID_SHARD."""

    sharding_group_size: Annotated[int, AT_LEAST_0, Resume.FREE, Needs("hsdp")] = 0
    """Ranks that share one copy of the model, with ``hsdp``."""

    replica_group_size: Annotated[int, AT_LEAST_0, Resume.FREE, Needs("hsdp")] = 0
    """Copies of the model, with ``hsdp``."""

    checkpoint_type: Annotated[_StateDict, Resume.FREE, WITH_FSDP] = field(
        default_factory=LibraryDefault(_StateDict, "SHARDED_STATE_DICT")
    )
    """How a full model is saved: SHARDED_STATE_DICT or FULL_STATE_DICT, a Hugging Face folder."""

    fsdp_activation_checkpointing: Annotated[bool, Resume.FREE, WITH_FSDP] = True
    """Recompute each layer's activations in the backward pass; ``gradient_checkpointing`` for
    FSDP."""

    fsdp_cpu_offload: Annotated[bool, Resume.FREE, WITH_FSDP] = False
    """Keep weights, gradients and optimiser state in host memory."""

    pure_bf16: Annotated[bool, Resume.METHOD] = False
    """Store the trained weights in bfloat16 too."""

    optimizer: Annotated[
        str,
        Choices(*OPTIMIZERS, any_case=True),
        Resume.METHOD,
    ] = "AdamW"
    """"AdamW", "anyprecision", "adamw_8bit", "paged_adamw" or "paged_adamw_8bit"."""


show_defaults(fsdp_config)

__getattr__ = fall_back("configs.fsdp")

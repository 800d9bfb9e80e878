"""Distribution of a model over ranks: the process group, meshes, FSDP2 and its policies.

``finetuning.main`` imports ``FullyShardedDataParallel`` and ``ShardingStrategy`` from here.
"""

from torch.distributed.fsdp import ShardingStrategy

from llama_recipes_local.parallel.alone import computing_alone
from llama_recipes_local.parallel.peers import PeerEndedError, Peers
from llama_recipes_local.parallel.process_group import (
    all_reduce_sum,
    barrier,
    broadcast,
    cleanup,
    device_type,
    from_all_ranks,
    is_rank_zero,
    launched_by_torchrun,
    rank,
    setup,
    world_size,
)
from llama_recipes_local.parallel.quantized import is_quantized
from llama_recipes_local.parallel.replicas import with_shared_gradients
from llama_recipes_local.parallel.sharding import (
    FullyShardedDataParallel,
    compute_device,
    fsdp_auto_wrap_policy,
    full_tensor,
    get_policies,
    hsdp_device_mesh,
    reshard,
    set_gradient_sync,
)
from llama_recipes_local.parallel.watch import Watch, watch_peers

__all__ = [
    "FullyShardedDataParallel",
    "PeerEndedError",
    "Peers",
    "ShardingStrategy",
    "Watch",
    "all_reduce_sum",
    "barrier",
    "broadcast",
    "cleanup",
    "compute_device",
    "computing_alone",
    "device_type",
    "from_all_ranks",
    "fsdp_auto_wrap_policy",
    "full_tensor",
    "get_policies",
    "hsdp_device_mesh",
    "is_quantized",
    "is_rank_zero",
    "launched_by_torchrun",
    "rank",
    "reshard",
    "set_gradient_sync",
    "setup",
    "watch_peers",
    "with_shared_gradients",
    "world_size",
]

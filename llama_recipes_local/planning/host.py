"""What a run needs besides the devices' memory: host memory, and disk for what it saves."""

from llama_recipes_local.planning.setting import OFFLOAD, Setting

GB = 10**9
GIB = 2**30
PROCESS = 3.0
"""GiB of a rank's process with its libraries and CUDA's part of host memory."""

_FILE = 5.0
"""GB of a file of weights, which one process reads at a time."""


def host_gib(setting: Setting, low_cpu: bool = False, saves_behind: bool = False) -> float:
    """Return the GiB of host memory that the ranks of a host need.

    With FSDP, each rank holds the model once while loading, or with ``low_cpu_fsdp`` only its
    share. A single process, and quantised weights, go to the device file by file.

    Args:
        setting: what is trained, and how.
        low_cpu: ``--low_cpu_fsdp``.
        saves_behind: ``--async_save``, which writes from a copy in host memory.
    """
    ranks, shape = setting.ranks, setting.shape
    processes = max(ranks.world // ranks.hosts, 1)
    whole = shape.weights * 2.0 / GIB
    by_file = not ranks.uses_fsdp or setting.weights.bits
    loading = min(whole, _FILE * GB / GIB) if by_file else whole / (ranks.shards if low_cpu else 1)
    training = 0.0
    if setting.policy == OFFLOAD:
        training += 2.0 * setting.batch.tokens * shape.hidden * setting.layers / GIB
    if ranks.cpu_offload:
        training += (shape.weights * 2.0 + setting.trained * 12.0) / ranks.shards / GIB
    if saves_behind:
        training += checkpoint_gb(setting) * GB / GIB / ranks.world
    return processes * (PROCESS + max(loading, training))


def checkpoint_gb(setting: Setting) -> float:
    """Return the GB of a checkpoint: trained weights and both moments; an adapter twice."""
    adapter = setting.adapter.weights(setting.shape) if setting.adapter is not None else 0
    size = setting.adapter.bytes if setting.adapter is not None else 0
    return (4 * size * adapter + 3 * setting.weights.bytes * setting.weights.trained) / GB


def saved_gb(setting: Setting) -> float:
    """Return the GB of the adapter, or of the model, that a run saves."""
    if setting.adapter is not None:
        return setting.adapter.weights(setting.shape) * setting.adapter.bytes / GB
    return setting.shape.weights * setting.weights.bytes / GB


def disk_gb(setting: Setting, save_steps: int = 0, keeps: int = 0) -> float:
    """Return the GB of disk that a run needs, with one checkpoint being written.

    Args:
        setting: what is trained.
        save_steps: steps between checkpoints; 0 writes none.
        keeps: checkpoints that stay, at least 1 with ``save_steps``.
    """
    if not save_steps:
        return 2 * saved_gb(setting)  # a better one is written before the last one goes
    return 2 * saved_gb(setting) + (max(keeps, 1) + 1) * checkpoint_gb(setting)

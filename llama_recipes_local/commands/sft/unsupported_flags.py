"""Flags of TRL's script, current and former ones, that ``sft.py`` does not support, and why."""

from collections.abc import Iterable

from llama_recipes_local.commands.sft.command_line import Flag
from llama_recipes_local.errors import Problem

_HUB = (
    "nothing is uploaded to or downloaded from the Hugging Face Hub",
    "leave it out; copy --output_dir to where you want it",
)
_MIXTURE = (
    "the data is one path on this machine",
    "put the files into one folder: --dataset_name DIR",
)
_PARTS = (
    "the file names say which files are for training and which for validation",
    "name the files: --dataset_name PATH --local_dataset.validation_path PATH",
)
_SHARDING = (
    "each rank holds the whole model here (DDP)",
    "to shard the model use finetuning.py --enable_fsdp",
)
_RESUMING = (
    "TRL resumes from pickles of the optimiser and RNG state, which can run code when they are "
    "loaded",
    "leave it out, or use finetuning.py, which resumes from safetensors and JSON",
)
_TOKENISED = (
    "rows are tokenised before training, as finetuning.py does it: on all cores, and a row that is "
    "too long loses the middle of its prompt first",
    "leave it out",
)
_IDLE = ("it has no effect in TRL's script", "leave it out")
_LOADING = (
    "it could load code or pickled weights",
    "use --dtype, --attn_implementation, --load_in_4bit",
)
UNSUPPORTED: dict[str, tuple[str, str]] = {
    "push_to_hub": _HUB,
    "hub_token": _HUB,
    "hub_private_repo": _HUB,
    "hub_model_id": _HUB,
    "hub_strategy": _HUB,
    "hub_always_push": _HUB,
    "hub_revision": _HUB,
    "use_auth_token": _HUB,
    "project": _HUB,
    "trackio_space_id": _HUB,
    "trackio_bucket_id": _HUB,
    "trackio_static_space_id": _HUB,
    "model_revision": ("a folder has no revisions", "name the folder of that revision"),
    "model_init_kwargs": _LOADING,
    "trust_remote_code": ("a model's own code is never run", "leave it out"),
    "resume_from_checkpoint": _RESUMING,
    "restore_callback_states_from_checkpoint": _RESUMING,
    "ignore_data_skip": _RESUMING,
    "enable_jit_checkpoint": _RESUMING,
    "dataset_config": _MIXTURE,
    "datasets": _MIXTURE,
    "streaming": _MIXTURE,
    "dataset_kwargs": _TOKENISED,
    "dataset_num_proc": _TOKENISED,
    "truncation_mode": _TOKENISED,
    "dataset_streaming": (
        "rows are memory-mapped from disk, so that any number of them fits",
        "leave it out",
    ),
    "test_split_size": _PARTS,
    "dataset_train_split": _PARTS,
    "dataset_test_split": _PARTS,
    "fsdp": _SHARDING,
    "fsdp_config": _SHARDING,
    "deepspeed": _SHARDING,
    "parallelism_config": _SHARDING,
    "accelerator_config": _SHARDING,
    "lora_task_type": ("a causal language model is trained", "leave it out"),
    "router_aux_loss_coef": ("a Llama has no router", "leave it out"),
    "ignore_bias_buffers": _IDLE,
    "do_train": ("sft.py always trains", "leave it out"),
    "do_eval": ("--eval_strategy says whether a run evaluates", "use --eval_strategy epoch"),
    "do_predict": _IDLE,
    "local_rank": ("torchrun sets each process's rank", "leave it out"),
    # what transformers and TRL have removed
    "overwrite_output_dir": (
        "transformers has removed it, and an earlier result is not overwritten",
        "leave it out, and name another folder: --output_dir DIR",
    ),
    "save_safetensors": ("weights are always saved as safetensors", "leave it out"),
    "group_by_length": (
        "transformers has renamed it",
        "use --train_sampling_strategy group_by_length",
    ),
    "logging_dir": (
        "transformers has removed it; events are written below --output_dir",
        "leave it out",
    ),
    "use_flash_attention_2": (
        "transformers has renamed it",
        "use --attn_implementation flash_attention_2",
    ),
    "num_of_sequences": ("TRL has removed it: rows are tokenised before training", "leave it out"),
    "chars_per_token": ("TRL has removed it: rows are tokenised before training", "leave it out"),
    "dataset_batch_size": ("TRL has removed it", "leave it out"),
}


def drop_unsupported(flags: Iterable[Flag], known: set[str]) -> tuple[list[Flag], list[Problem]]:
    """Take out unsupported flags; a current one may stay if its value is false.

    Args:
        flags: the flags.
        known: the names of TRL's current flags.

    Returns:
        The supported flags, and a problem for each other one.
    """
    supported: list[Flag] = []
    problems: list[Problem] = []
    for flag in flags:
        if flag.name not in UNSUPPORTED or (flag.name in known and flag.is_off):
            supported.append(flag)
        else:
            why, fix = UNSUPPORTED[flag.name]
            problems.append(Problem(f"{flag} is not supported", why, fix))
    return supported, problems

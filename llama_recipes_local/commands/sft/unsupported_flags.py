"""Flags of TRL's script, today's and older ones, that ``sft.py`` does not take, and why."""

from collections.abc import Iterable

from llama_recipes_local.commands.sft.command_line import Flag
from llama_recipes_local.errors import Problem

_HUB = (
    "nothing is sent to or looked up on the Hugging Face Hub",
    "leave it out; copy --output_dir to where it is wanted",
)
_MIXTURE = (
    "data is named by its place on this machine, once",
    "put the files into one folder and name that: --dataset_name DIR",
)
_PARTS = (
    "which files are for training and which for validation is told by their names",
    "name the files: --dataset_name PATH --local_dataset.validation_path PATH",
)
_SHARDING = (
    "each rank holds the whole model here (DDP)",
    "to shard the model use finetuning.py --enable_fsdp",
)
_RESUMING = (
    "TRL resumes from pickles of the optimiser and of random states, which could run code when "
    "they are read",
    "leave it out, or use finetuning.py, which resumes from safetensors and JSON",
)
_IDLE = ("it has no effect in TRL's script", "leave it out")
_LOADING = (
    "it could fetch code or pickled weights",
    "use --dtype, --attn_implementation, --load_in_4bit",
)
REFUSED: dict[str, tuple[str, str]] = {
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
    "model_revision": ("a folder has no revisions", "name the folder that holds it"),
    "model_init_kwargs": _LOADING,
    "trust_remote_code": ("code that comes with a model is never run", "leave it out"),
    "resume_from_checkpoint": _RESUMING,
    "restore_callback_states_from_checkpoint": _RESUMING,
    "ignore_data_skip": _RESUMING,
    "enable_jit_checkpoint": _RESUMING,
    "dataset_config": _MIXTURE,
    "datasets": _MIXTURE,
    "streaming": _MIXTURE,
    "dataset_streaming": (
        "rows are kept on disk and read from there, in any order, however many there are",
        "leave it out",
    ),
    "test_split_size": _PARTS,
    "dataset_train_split": _PARTS,
    "dataset_test_split": _PARTS,
    "config": (
        "a file of flags can also set environment variables",
        "write its flags on the command line",
    ),
    "fsdp": _SHARDING,
    "fsdp_config": _SHARDING,
    "deepspeed": _SHARDING,
    "parallelism_config": _SHARDING,
    "accelerator_config": _SHARDING,
    "lora_task_type": ("a causal language model is trained", "leave it out"),
    "router_aux_loss_coef": ("a Llama has no router", "leave it out"),
    "ignore_bias_buffers": _IDLE,
    "do_train": ("sft.py always trains", "leave it out"),
    "do_eval": ("evaluation goes by its strategy", "use --eval_strategy epoch"),
    "do_predict": _IDLE,
    "local_rank": ("torchrun tells each process its rank", "leave it out"),
    # what transformers has dropped
    "overwrite_output_dir": (
        "transformers has dropped it: files of the same names are always written anew",
        "leave it out, or name another folder: --output_dir DIR",
    ),
    "save_safetensors": ("weights are always saved as safetensors", "leave it out"),
    "group_by_length": (
        "transformers has renamed it",
        "use --train_sampling_strategy group_by_length",
    ),
    "logging_dir": (
        "transformers has dropped it; events are written below --output_dir",
        "leave it out",
    ),
    "use_flash_attention_2": (
        "transformers has renamed it",
        "use --attn_implementation flash_attention_2",
    ),
    "num_of_sequences": ("TRL has dropped it: rows are tokenised before training", "leave it out"),
    "chars_per_token": ("TRL has dropped it: rows are tokenised before training", "leave it out"),
    "dataset_batch_size": ("TRL has dropped it", "leave it out"),
}


def refuse(flags: Iterable[Flag], known: set[str]) -> tuple[list[Flag], list[Problem]]:
    """Take out the flags that are refused; one of today's that says no to its topic may stay.

    Args:
        flags: the flags.
        known: the names that TRL knows today.

    Returns:
        The others, and a problem for each refused one.
    """
    taken: list[Flag] = []
    problems: list[Problem] = []
    for flag in flags:
        if flag.name not in REFUSED or (flag.name in known and flag.is_off):
            taken.append(flag)
        else:
            why, fix = REFUSED[flag.name]
            problems.append(Problem(f"{flag} is not taken", why, fix))
    return taken, problems

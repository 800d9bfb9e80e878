"""What each field of a configuration means, for ``--help``.

Fields of this package are described below where they are declared; upstream's are here.
"""

import ast
import inspect
import textwrap

from llama_recipes_local.fields import field_names

UPSTREAM: dict[str, str] = {
    # train_config
    "enable_fsdp": "Run under torchrun on several ranks, with FSDP2.",
    "low_cpu_fsdp": "Each rank reads its own share of the weights only.",
    "run_validation": "Validate before training, and after each epoch or each ``eval_steps``.",
    "batch_size_training": "Rows of a rank's micro-batch.",
    "batching_strategy": '"packing" fills rows with whole documents, "padding" pads each to the '
    "longest of its batch.",
    "context_length": "Tokens of a row; longer samples are truncated.",
    "gradient_accumulation_steps": "Micro-batches in an optimiser step.",
    "gradient_clipping": "Scale down gradients whose norm is above the threshold.",
    "gradient_clipping_threshold": "The largest norm with ``gradient_clipping``.",
    "num_epochs": "Passes over the training data.",
    "max_train_step": "Optimiser steps after which the run ends; 0 means no such end.",
    "max_eval_step": "Batches of a validation; 0 means all.",
    "num_workers_dataloader": "Processes that prepare batches, for each rank.",
    "lr": "Learning rate.",
    "weight_decay": "AdamW's.",
    "gamma": 'What the scheduler "step" multiplies the rate by after each epoch.',
    "seed": "Of the order of the data, dropout and the first weights of adapters.",
    "val_batch_size": "Rows of a rank's batch in validation.",
    "use_peft": "Train an adapter, see ``peft_method``, and leave the model as it is.",
    "from_peft_checkpoint": "Folder of an adapter to go on training.",
    "freeze_layers": "Leave the first ``num_freeze_layers`` decoder layers as they are.",
    "num_freeze_layers": "How many layers ``freeze_layers`` means.",
    "one_gpu": "Nothing; upstream's name for what happens without ``enable_fsdp``.",
    "save_model": "Save the adapter or model, where there is validation the best one.",
    "dist_checkpoint_folder": "Beginning of the name of a sharded model's folder, in "
    "``dist_checkpoint_root_folder``.",
    "save_optimizer": "Save the optimiser's state with a model that is trained whole by FSDP.",
    "use_fast_kernels": "Fused kernels of liger-kernel on CUDA.",
    "use_wandb": "Upstream's switch for Weights & Biases, offline unless ``wandb_config.mode`` "
    "says otherwise.",
    "save_metrics": "Write all losses into one JSON file too.",
    "flop_counter": "Count the floating-point operations of a step.",
    "flop_counter_start": "The step that ``flop_counter`` counts.",
    "use_profiler": "Write traces of some steps into ``profiler_dir``.",
    # fsdp_config, the first two in train_config too
    "mixed_precision": "Multiply in half precision on CUDA, see ``use_fp16``.",
    "use_fp16": "Multiply in float16 with a gradient scaler instead of in bfloat16.",
    "sharding_strategy": "FULL_SHARD, SHARD_GRAD_OP, NO_SHARD (DDP) or HYBRID_SHARD.",
    "hsdp": "HYBRID_SHARD with group sizes of your own.",
    "sharding_group_size": "Ranks that share one copy of the model, with ``hsdp``.",
    "replica_group_size": "Copies of the model, with ``hsdp``.",
    "checkpoint_type": "How a model that is trained whole is saved: SHARDED_STATE_DICT or "
    "FULL_STATE_DICT, a Hugging Face folder.",
    "fsdp_activation_checkpointing": "``gradient_checkpointing`` with FSDP.",
    "fsdp_cpu_offload": "Keep weights, gradients and optimiser state in host memory.",
    "pure_bf16": "Hold what is trained in bfloat16 too.",
    "optimizer": '"AdamW", "anyprecision", "adamw_8bit", "paged_adamw" or "paged_adamw_8bit".',
    # adapters
    "r": "Rank of LoRA's matrices.",
    "lora_alpha": "LoRA's change is multiplied by ``lora_alpha / r``.",
    "target_modules": 'Layers that get LoRA, by their last names, or "all-linear".',
    "lora_dropout": "Share of LoRA's inputs that are dropped in training.",
    "task_type": "PEFT's name for the task.",
    "inference_mode": "PEFT's switch for an adapter that is not trained.",
    "adapter_len": "Prompts of LLaMA-Adapter in each of its layers.",
    "adapter_layers": "How many of the last layers get them.",
    "num_virtual_tokens": "Length of the prefix.",
    # quantization_config
    "quant_type": '"nf4" or "fp4".',
    "compute_dtype": "dtype that 4-bit weights are multiplied in; by default what is computed in.",
    "use_double_quant": "Quantise the scales of 4-bit weights too.",
    "quant_storage": "dtype that 4-bit weights are stored in; by default what FSDP wants.",
}


def descriptions(cls: type) -> dict[str, str]:
    """Return what the fields of a configuration mean, each in a line, in the fields' order.

    Fields that only say what is known already, as a data set's own name, are not among them.
    """
    own = _declared(cls)
    found = {name: own.get(name) or UPSTREAM.get(name) for name in field_names(cls)}
    return {name: text for name, text in found.items() if text}


def _declared(cls: type) -> dict[str, str]:
    """Return the strings that stand below the fields in a class's source."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found

"""The flags of ``finetune`` and their types, for editors and type checkers.

``make flag-types`` writes this file from the configurations.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import torch
    import torch.distributed.fsdp

PathText = str | PathLike[str]


class _train_config(TypedDict, total=False):
    """Flags of ``train_config`` alone."""

    model_name: PathText
    tokenizer_name: PathText | None
    enable_fsdp: bool
    low_cpu_fsdp: bool
    run_validation: bool
    batch_size_training: int
    batching_strategy: str
    context_length: int
    gradient_accumulation_steps: int
    gradient_clipping: bool
    gradient_clipping_threshold: float
    num_epochs: int
    max_train_step: int
    max_eval_step: int
    num_workers_dataloader: int
    lr: float
    weight_decay: float
    gamma: float
    seed: int
    use_fp16: bool
    mixed_precision: bool
    val_batch_size: int
    peft_method: str
    use_peft: bool
    from_peft_checkpoint: PathText
    output_dir: PathText
    freeze_layers: bool
    num_freeze_layers: int
    quantization: bool | str | None
    one_gpu: bool
    save_model: bool
    dist_checkpoint_root_folder: PathText
    dist_checkpoint_folder: str
    save_optimizer: bool
    use_fast_kernels: bool
    use_wandb: bool
    save_metrics: bool
    flop_counter: bool
    flop_counter_start: int
    use_profiler: bool
    profiler_dir: PathText
    length_group_size: int
    allow_other_base: bool
    overwrite_output_dir: bool
    dataset: PathText
    dry_run: bool
    rehearse: bool
    samples: int
    config: PathText
    train_only: str
    top_layers: int
    data_root: PathText
    data_cache: PathText
    tokens_path: PathText
    dtype: str
    attn_implementation: str
    fp8: bool
    gradient_checkpointing: bool
    activation_policy: str
    scheduler: str
    loraplus_lr_ratio: float
    train_new_tokens: bool
    warmup_steps: int
    min_lr_ratio: float
    wsd_decay_ratio: float
    eval_steps: int
    eval_generation_rows: int
    metric_for_best_model: str
    early_stopping_patience: int
    early_stopping_threshold: float
    verbose: bool
    report_to: str | Sequence[str]
    save_steps: int
    save_total_limit: int
    async_save: bool
    process_group_timeout: int
    resume_from_checkpoint: PathText
    resume_despite: str | Sequence[str]


class _fsdp_config(TypedDict, total=False):
    """Flags of ``fsdp_config`` alone."""

    mixed_precision: bool
    use_fp16: bool
    sharding_strategy: str | torch.distributed.fsdp.ShardingStrategy
    hsdp: bool
    sharding_group_size: int
    replica_group_size: int
    checkpoint_type: str | torch.distributed.fsdp.StateDictType
    fsdp_activation_checkpointing: bool
    fsdp_cpu_offload: bool
    pure_bf16: bool
    optimizer: str


class _quantization_config(TypedDict, total=False):
    """Flags of ``quantization_config`` alone."""

    quant_type: str
    compute_dtype: str | torch.dtype
    use_double_quant: bool
    quant_storage: str | torch.dtype


class _wandb_config(TypedDict, total=False):
    """Flags of ``wandb_config`` alone."""

    project: str
    entity: str | None
    job_type: str | None
    tags: str | Sequence[str] | None
    group: str | None
    notes: str | None
    mode: str | None
    id: str | None
    resume: str | None


class _lora_config(TypedDict, total=False):
    """Flags of ``lora_config`` alone."""

    r: int
    lora_alpha: int
    target_modules: str | Sequence[str]
    task_type: str
    lora_dropout: float
    inference_mode: bool
    bias: str
    use_rslora: bool
    use_dora: bool
    init_lora_weights: bool | str


class _llama_adapter_config(TypedDict, total=False):
    """Flags of ``llama_adapter_config`` alone."""

    adapter_len: int
    adapter_layers: int
    task_type: str


class _prefix_config(TypedDict, total=False):
    """Flags of ``prefix_config`` alone."""

    num_virtual_tokens: int
    task_type: str


class _alpaca_dataset(TypedDict, total=False):
    """Flags of ``alpaca_dataset`` alone."""

    dataset: PathText
    train_split: PathText
    test_split: PathText
    data_path: PathText
    data_root: PathText


class _custom_dataset(TypedDict, total=False):
    """Flags of ``custom_dataset`` alone."""

    dataset: PathText
    file: PathText
    train_split: PathText
    test_split: PathText
    data_path: PathText
    data_root: PathText


class _grammar_dataset(TypedDict, total=False):
    """Flags of ``grammar_dataset`` alone."""

    dataset: PathText
    train_split: PathText
    test_split: PathText
    data_root: PathText


class _guanaco_dataset(TypedDict, total=False):
    """Flags of ``guanaco_dataset`` alone."""

    dataset: PathText
    train_split: PathText
    test_split: PathText
    data_path: PathText
    data_root: PathText


class _llamaguard_toxicchat_dataset(TypedDict, total=False):
    """Flags of ``llamaguard_toxicchat_dataset`` alone."""

    dataset: PathText
    train_split: PathText
    test_split: PathText
    data_path: PathText
    data_root: PathText


class _local_dataset(TypedDict, total=False):
    """Flags of ``local_dataset`` alone."""

    dataset: PathText
    train_split: PathText
    test_split: PathText
    data_path: PathText
    validation_path: PathText
    validation_fraction: float
    format: str
    columns: str
    documents: str
    encoding: str
    template: str
    labels: str
    skip_bad_rows: bool
    streaming: bool
    data_root: PathText


class _mixed_dataset(TypedDict, total=False):
    """Flags of ``mixed_dataset`` alone."""

    dataset: PathText
    sources: str
    data_root: PathText


class _samsum_dataset(TypedDict, total=False):
    """Flags of ``samsum_dataset`` alone."""

    dataset: PathText
    train_split: PathText
    test_split: PathText
    trust_remote_code: bool
    data_path: PathText
    data_root: PathText


class RunFlags(TypedDict, total=False):
    """Every flag; one that several have sets all of them."""

    model_name: PathText
    tokenizer_name: PathText | None
    enable_fsdp: bool
    low_cpu_fsdp: bool
    run_validation: bool
    batch_size_training: int
    batching_strategy: str
    context_length: int
    gradient_accumulation_steps: int
    gradient_clipping: bool
    gradient_clipping_threshold: float
    num_epochs: int
    max_train_step: int
    max_eval_step: int
    num_workers_dataloader: int
    lr: float
    weight_decay: float
    gamma: float
    seed: int
    use_fp16: bool
    mixed_precision: bool
    val_batch_size: int
    peft_method: str
    use_peft: bool
    from_peft_checkpoint: PathText
    output_dir: PathText
    freeze_layers: bool
    num_freeze_layers: int
    quantization: bool | str | None
    one_gpu: bool
    save_model: bool
    dist_checkpoint_root_folder: PathText
    dist_checkpoint_folder: str
    save_optimizer: bool
    use_fast_kernels: bool
    use_wandb: bool
    save_metrics: bool
    flop_counter: bool
    flop_counter_start: int
    use_profiler: bool
    profiler_dir: PathText
    length_group_size: int
    allow_other_base: bool
    overwrite_output_dir: bool
    dataset: PathText
    dry_run: bool
    rehearse: bool
    samples: int
    config: PathText
    train_only: str
    top_layers: int
    data_root: PathText
    data_cache: PathText
    tokens_path: PathText
    dtype: str
    attn_implementation: str
    fp8: bool
    gradient_checkpointing: bool
    activation_policy: str
    scheduler: str
    loraplus_lr_ratio: float
    train_new_tokens: bool
    warmup_steps: int
    min_lr_ratio: float
    wsd_decay_ratio: float
    eval_steps: int
    eval_generation_rows: int
    metric_for_best_model: str
    early_stopping_patience: int
    early_stopping_threshold: float
    verbose: bool
    report_to: str | Sequence[str]
    save_steps: int
    save_total_limit: int
    async_save: bool
    process_group_timeout: int
    resume_from_checkpoint: PathText
    resume_despite: str | Sequence[str]
    sharding_strategy: str | torch.distributed.fsdp.ShardingStrategy
    hsdp: bool
    sharding_group_size: int
    replica_group_size: int
    checkpoint_type: str | torch.distributed.fsdp.StateDictType
    fsdp_activation_checkpointing: bool
    fsdp_cpu_offload: bool
    pure_bf16: bool
    optimizer: str
    quant_type: str
    compute_dtype: str | torch.dtype
    use_double_quant: bool
    quant_storage: str | torch.dtype
    project: str
    entity: str | None
    job_type: str | None
    tags: str | Sequence[str] | None
    group: str | None
    notes: str | None
    mode: str | None
    r: int
    lora_alpha: int
    target_modules: str | Sequence[str]
    task_type: str
    lora_dropout: float
    inference_mode: bool
    bias: str
    use_rslora: bool
    use_dora: bool
    init_lora_weights: bool | str
    adapter_len: int
    adapter_layers: int
    num_virtual_tokens: int
    train_split: PathText
    test_split: PathText
    data_path: PathText
    file: PathText
    validation_path: PathText
    validation_fraction: float
    format: str
    columns: str
    documents: str
    encoding: str
    template: str
    labels: str
    skip_bad_rows: bool
    streaming: bool
    sources: str
    trust_remote_code: bool
    train_config: _train_config
    fsdp_config: _fsdp_config
    quantization_config: _quantization_config
    wandb_config: _wandb_config
    lora_config: _lora_config
    llama_adapter_config: _llama_adapter_config
    prefix_config: _prefix_config
    alpaca_dataset: _alpaca_dataset
    custom_dataset: _custom_dataset
    grammar_dataset: _grammar_dataset
    guanaco_dataset: _guanaco_dataset
    llamaguard_toxicchat_dataset: _llamaguard_toxicchat_dataset
    local_dataset: _local_dataset
    mixed_dataset: _mixed_dataset
    samsum_dataset: _samsum_dataset

"""``train_config``: upstream's fields and defaults, local folders, and the fork's own flags."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llama_recipes_local._upstream import load

if TYPE_CHECKING:
    from llama_recipes_local._vendor.llama_recipes.configs.training import (
        train_config as _train_config,
    )
else:
    _train_config = load("configs.training").train_config


@dataclass
class train_config(_train_config):
    """How to train. Fields that are not listed here are upstream's, with upstream's defaults."""

    model_name: str = ""
    """Folder of the model to fine-tune, in the Hugging Face layout."""

    tokenizer_name: str | None = None  # type: ignore[assignment]  # upstream says str
    """Folder of the tokenizer; None means the model's."""

    dataset: str = "samsum_dataset"
    """Name of the data set; upstream leaves it without a type."""

    output_dir: str = "outputs"
    """Folder that the adapter or model is saved in."""

    peft_method: str = "lora"
    """"lora", "llama_adapter" or "prefix"; used with ``use_peft``."""

    preset: str = ""
    """Settings by name: "qlora" is the QLoRA paper's; a flag that is given goes before them."""

    train_only: str = ""
    """What is trained without an adapter: "lm_head" is the head alone, "last:N" the last N decoder
    layers, without the normalisation and the head behind them; "" is every weight."""

    top_layers: int = 0
    """New fully connected layers between the last hidden state and the head; they alone are
    trained, and saved with the model."""

    quantization: bool | str | None = None  # type: ignore[assignment]  # upstream says str
    """"4bit" or "8bit"; None means the weights stay as they are, True is upstream's old name for
    "8bit"."""

    dist_checkpoint_root_folder: str = "checkpoints"
    """Folder for the checkpoints of fully sharded models, below the working directory."""

    profiler_dir: str = "profiles"
    """Folder for the traces of ``use_profiler``."""

    data_root: str = ""
    """Folder that relative data paths start from; empty means ``LLAMA_RECIPES_DATA_ROOT`` or the
    working directory."""

    data_cache: str = ""
    """Folder that tokens are kept in; empty means ``LLAMA_RECIPES_CACHE`` or
    ``~/.cache/llama-recipes-local``."""

    dtype: str = "auto"
    """dtype the weights are held in: "auto" (bfloat16 on CUDA, float16 there with ``use_fp16``,
    float32 on CPU), "bfloat16", "float16" or "float32"."""

    attn_implementation: str = "auto"
    """Attention kernel: "auto", "documents" (packed documents apart, without a mask), or one of
    transformers': "sdpa", "eager", "flash_attention_2"."""

    gradient_checkpointing: bool = False
    """Whether each layer's activations are computed again in the backward pass: less memory for
    about a third more work. With FSDP ``fsdp_activation_checkpointing`` says so."""

    scheduler: str = "step"
    """Learning rate: "step" (upstream's: times ``gamma`` after each epoch), or by optimiser step
    "constant", "linear", "cosine" or "wsd" (warm up, stay, decay)."""

    loraplus_lr_ratio: float = 0.0
    """The learning rate of LoRA's matrices B as a multiple of ``lr`` (LoRA+, 2402.12354); 0 means
    the same."""

    warmup_steps: int = 0
    """Optimiser steps in which the rate rises to ``lr``, with any scheduler."""

    min_lr_ratio: float = 0.0
    """Where "linear", "cosine" and "wsd" decay to, as a fraction of ``lr``."""

    wsd_decay_ratio: float = 0.1
    """Last part of the run, as a fraction of its steps, in which "wsd" decays."""

    eval_steps: int = 0
    """Optimiser steps from one validation to the next; 0 validates after each epoch."""

    report_to: list[str] = field(default_factory=list)
    """Loggers beside ``metrics.jsonl``: "tensorboard", "wandb", "mlflow"; all write below
    ``output_dir``."""

    save_steps: int = 0
    """Optimiser steps from one checkpoint to the next; 0 saves none but where a signal asks."""

    save_total_limit: int = 0
    """How many checkpoints to keep, the newest, and the best beside them; 0 keeps all."""

    async_save: bool = False
    """Whether training goes on while a checkpoint is written, from a copy in host memory."""

    resume_from_checkpoint: str = ""
    """Folder of a checkpoint to go on from, or "auto": the newest whole one in ``output_dir``, or
    afresh if there is none."""

    resume_despite: list[str] = field(default_factory=list)
    """What may differ from the run that is gone on from: "data", "tokenizer", "batch", "model",
    "method", "schedule"."""

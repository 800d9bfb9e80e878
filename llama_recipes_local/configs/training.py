"""``train_config``: upstream's fields and defaults, local folders, and the fork's own flags."""

from dataclasses import dataclass

from llama_recipes_local._upstream import load


@dataclass
class train_config(load("configs.training").train_config):  # type: ignore[misc]
    """How to train. Fields that are not listed here are upstream's, with upstream's defaults."""

    model_name: str = ""
    """Folder of the model to fine-tune, in the Hugging Face layout."""

    tokenizer_name: str | None = None
    """Folder of the tokenizer; None means the model's."""

    dataset: str = "samsum_dataset"
    """Name of the data set; upstream leaves it without a type."""

    output_dir: str = "outputs"
    """Folder that the adapter or model is saved in."""

    peft_method: str = "lora"
    """"lora", "llama_adapter" or "prefix"; used with ``use_peft``."""

    quantization: bool | str | None = None
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

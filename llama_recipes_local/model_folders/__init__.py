"""Folders in the Hugging Face layout: their tensors read one at a time, and new ones written."""

from llama_recipes_local.model_folders.adapter_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    check_adapter_files,
    read_adapter_config,
    unnamed_base,
)
from llama_recipes_local.model_folders.auxiliary_files import (
    TOKENIZERS,
    copy_companions,
    has_tokenizer,
)
from llama_recipes_local.model_folders.find_tokenizer import find_tokenizer
from llama_recipes_local.model_folders.model_config import check_config, load_config, read_config
from llama_recipes_local.model_folders.output_folder import check_room, check_target
from llama_recipes_local.model_folders.save import write_config, write_weights
from llama_recipes_local.model_folders.tensors import (
    StoredTensors,
    misshapen,
    model_tensors,
    parameter_count,
)
from llama_recipes_local.model_folders.weight_files import check_weights, has_weights

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "TOKENIZERS",
    "StoredTensors",
    "check_adapter_files",
    "check_config",
    "check_room",
    "check_target",
    "check_weights",
    "copy_companions",
    "find_tokenizer",
    "has_tokenizer",
    "has_weights",
    "load_config",
    "misshapen",
    "model_tensors",
    "parameter_count",
    "read_adapter_config",
    "read_config",
    "unnamed_base",
    "write_config",
    "write_weights",
]

"""Folders in the Hugging Face layout: tensors are read one at a time, new folders are written."""

from llama_recipes_local.model_folders.adapter_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    check_adapter_files,
    check_no_adapter,
    read_adapter_config,
    tokens_of,
    trained_tokens,
    unnamed_base,
    vocabulary_of_adapter,
)
from llama_recipes_local.model_folders.architectures import check_architecture
from llama_recipes_local.model_folders.auxiliary_files import (
    TOKENIZERS,
    copy_auxiliary_files,
    has_tokenizer,
)
from llama_recipes_local.model_folders.base_record import (
    OTHER_BASE,
    compare_base,
    record_base,
)
from llama_recipes_local.model_folders.find_tokenizer import find_tokenizer
from llama_recipes_local.model_folders.model_config import check_config, load_config, read_config
from llama_recipes_local.model_folders.output_folder import check_free_space, check_output_folder
from llama_recipes_local.model_folders.save import write_config, write_weights
from llama_recipes_local.model_folders.tensors import (
    Header,
    StoredTensors,
    model_tensors,
    parameter_count,
    shape_mismatches,
)
from llama_recipes_local.model_folders.weight_files import (
    check_weights,
    has_weights,
    weight_files,
)

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "OTHER_BASE",
    "TOKENIZERS",
    "Header",
    "StoredTensors",
    "check_adapter_files",
    "check_architecture",
    "check_config",
    "check_free_space",
    "check_no_adapter",
    "check_output_folder",
    "check_weights",
    "compare_base",
    "copy_auxiliary_files",
    "find_tokenizer",
    "has_tokenizer",
    "has_weights",
    "load_config",
    "model_tensors",
    "parameter_count",
    "read_adapter_config",
    "read_config",
    "record_base",
    "shape_mismatches",
    "tokens_of",
    "trained_tokens",
    "unnamed_base",
    "vocabulary_of_adapter",
    "weight_files",
    "write_config",
    "write_weights",
]

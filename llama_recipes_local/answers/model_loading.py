"""Loads the model that completes prompts, and its tokenizer."""

from pathlib import Path
from typing import Any

import peft
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llama_recipes_local.adapters import PeftModel
from llama_recipes_local.adapters.compatibility import (
    find_mismatch,
    mismatch_problem,
)
from llama_recipes_local.answers.model_source import ModelSource
from llama_recipes_local.errors import UsageError, refuse
from llama_recipes_local.model_folders.adapter_files import ADAPTER_WEIGHTS, vocabulary_of_adapter
from llama_recipes_local.models import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from llama_recipes_local.models.embedding_rows import grow
from llama_recipes_local.models.tokenizer_files import check_tokenizer_files
from llama_recipes_local.parallel import device_type


def load_model(source: ModelSource) -> PreTrainedModel | peft.PeftModel:
    """Load the model, with its adapter, on CUDA or else on the CPU."""
    device = torch.device(device_type())
    model = AutoModelForCausalLM.from_pretrained(
        source.model,
        dtype=source.dtype,
        quantization_config=source.bitsandbytes(),
        device_map={"": device},
    )
    if source.adapter is not None:
        rows = vocabulary_of_adapter(source.adapter) or 0
        if rows > model.get_input_embeddings().weight.shape[0]:
            grow(model, rows)
        model = _adapted(model, source.adapter)
    return model.eval()


def _adapted(model: PreTrainedModel, folder: Path) -> peft.PeftModel:
    """Put an adapter onto its base model.

    Raises:
        UsageError: if the adapter is not compatible with this model, or incomplete.
    """
    plain = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    try:
        adapted = PeftModel.from_pretrained(model, folder)
        why = find_mismatch(adapted, plain, folder / ADAPTER_WEIGHTS)
    except UsageError:
        raise
    except Exception as error:  # PEFT raises another for each thing that may be wrong
        raise UsageError([mismatch_problem("--adapter", folder, error)]) from error
    if why:
        raise UsageError([mismatch_problem("--adapter", folder, why)])
    return adapted


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Load the tokenizer, with padding on the left: completions start at the prompts' ends.

    Raises:
        UsageError: if its files are corrupt.
    """
    refuse(check_tokenizer_files(source.tokenizer))
    tokenizer: Any = AutoTokenizer.from_pretrained(source.tokenizer)
    tokenizer.padding_side = "left"
    rows, _ = vocabulary_and_positions(source)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows:
        end = tokenizer.eos_token_id  # or any other row: it is masked
        tokenizer.pad_token_id = end if end is not None and end < rows else 0
    return tokenizer


def vocabulary_and_positions(source: ModelSource) -> tuple[int, int | None]:
    """Return the size of the model's vocabulary, and its number of positions if it has a limit."""
    config: Any = AutoConfig.from_pretrained(source.model).get_text_config()
    rows = (vocabulary_of_adapter(source.adapter) if source.adapter else None) or 0
    return max(rows, config.vocab_size), getattr(config, "max_position_embeddings", None)

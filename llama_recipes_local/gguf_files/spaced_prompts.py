"""Tells where llama.cpp's SentencePiece gives a model's prompts other tokens than its tokenizer."""

import copy
from typing import Any

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.gguf_files.vocabulary import Vocabulary
from llama_recipes_local.models.tokenizer_rules import SPACE_BEFORE, component


def other_spaces(known: Vocabulary, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """Return a line that says which tokens of a prompt differ; "" if none does.

    A tokenizer that transformers 5 has saved puts a space before a text alone, and llama.cpp, as
    SentencePiece, before each part of it between special tokens.

    Args:
        known: the tokenizer in the form that the file stores.
        tokenizer: the model's.
        prompt: one of the model's, without the begin token.
    """
    if not known.space_prefix:
        return ""
    theirs: Any = copy.deepcopy(tokenizer)
    theirs.backend_tokenizer.normalizer = component("normalizer", SPACE_BEFORE)
    theirs.backend_tokenizer.pre_tokenizer = component("pre_tokenizer", None)
    first, second = (
        each(prompt, add_special_tokens=False)["input_ids"] for each in (tokenizer, theirs)
    )
    if first == second:
        return ""
    return (
        "llama.cpp gives the model's prompts other tokens: a space more after a special token "
        f"({tokenizer.convert_ids_to_tokens(second)} for {tokenizer.convert_ids_to_tokens(first)})"
    )

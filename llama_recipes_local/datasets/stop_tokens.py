"""The tokens that generation stops at, for generation itself and for the audit before training."""

import json
from collections.abc import Iterable
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.datasets.prompt_template import PromptTemplate, chat_prompt_template
from llama_recipes_local.datasets.templates import has_chat_template
from llama_recipes_local.datasets.token_ids import text_ids
from llama_recipes_local.errors import UsageError


def end_of_turn_token(
    template: PromptTemplate | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[int | None, str]:
    """Return the special token that ends a turn, or else the text that starts the next turn."""
    end = template.end_of_turn(tokenizer) if template else ""
    first = text_ids(tokenizer, [end])[0][:1]
    if first and first[0] in tokenizer.added_tokens_decoder:
        return first[0], ""
    return None, end


def stop_ids(
    template: PromptTemplate | None, tokenizer: PreTrainedTokenizerBase, ends: Iterable[int]
) -> list[int]:
    """Return the ids that generation stops at.

    They are the model's own end tokens, the tokenizer's end of text, and the tokens that end a turn
    in the prompt's template and in the tokenizer's, because an instruct model ends its answers with
    these after any prompt.

    Args:
        template: the prompt's template.
        tokenizer: the model's.
        ends: the end tokens that the model's folder names, see ``ends_of_folder``.
    """
    turns = [end_of_turn_token(each, tokenizer)[0] for each in (template, _own(tokenizer))]
    ids = [*ends, tokenizer.eos_token_id, *turns]
    return list(dict.fromkeys(token for token in ids if token is not None))


def _own(tokenizer: PreTrainedTokenizerBase) -> PromptTemplate | None:
    """Return the tokenizer's own chat template; None without one that writes turns."""
    if not has_chat_template(tokenizer):
        return None
    try:
        own = chat_prompt_template("tokenizer", tokenizer)
        own.end_of_turn(tokenizer)
    except UsageError:
        return None
    return own


def ends_of_folder(folder: Path) -> list[int]:
    """Return the end tokens of a model's generation configuration, or else of its model's."""
    for name in ("generation_config.json", "config.json"):
        try:
            ends = json.loads((folder / name).read_text("utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        if ends is not None:
            each = ends if isinstance(ends, list) else [ends]
            return [token for token in each if isinstance(token, int)]
    return []

"""The tokens that generation stops at, for generation itself and for the audit before training."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.datasets.prompt_template import PromptTemplate
from llama_recipes_local.datasets.token_ids import text_ids


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
    template: PromptTemplate | None, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> list[int]:
    """Return the ids that generation stops at: of the folder, the tokenizer and the template."""
    ids = [*_of_folder(folder), tokenizer.eos_token_id, end_of_turn_token(template, tokenizer)[0]]
    return list(dict.fromkeys(token for token in ids if token is not None))


def _of_folder(folder: Path) -> list[int]:
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

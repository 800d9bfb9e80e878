"""Finds a text in the data to try the trained model with, as a user would type it."""

import numpy as np
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.datasets.prompt_template import PromptTemplate
from llama_recipes_local.datasets.token_ids import text_ids

ROWS_TRIED = 50
MOST_CHARACTERS = 100
_MARK = "where the text goes"


def asked_text(
    rows: TokenRows, template: PromptTemplate, tokenizer: PreTrainedTokenizerBase
) -> str:
    """Return what a user would type to get the prompt of one of the first rows.

    Returns:
        A line that the template makes the row's own tokens of; "" if no row has a short one, as
        where each begins with a system message.
    """
    before, _, after = template.of_text(_MARK, tokenizer).partition(_MARK)
    for index in range(min(len(rows), ROWS_TRIED)):
        row, labels = rows.arrays(index)
        ids = row[: np.argmax(labels >= 0)].tolist()
        prompt = str(tokenizer.decode(ids))
        text = prompt.removeprefix(before).removesuffix(after)
        if not text.isprintable() or not 0 < len(text.strip()) <= MOST_CHARACTERS:
            continue
        if text_ids(tokenizer, [template.of_text(text, tokenizer)]) == [ids]:
            return text
    return ""

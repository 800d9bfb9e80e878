"""Which frame prompts are put into: as asked, or as training saved it."""

from typing import Any

from llama_recipes_local.commands.generate.model_source import Source
from llama_recipes_local.datasets.prompt_template import (
    FRAME_FILE,
    PROMPT,
    Frame,
    chat_frame,
    find_frame,
    read_frame,
)
from llama_recipes_local.prompts import PROMPTS

TEMPLATE_FLAG = "--template"


def choose_frame(
    source: Source,
    tokenizer: Any,
    raw: bool = False,
    dataset: str | None = None,
    template: str | None = None,
) -> tuple[Frame | None, str]:
    """Return the frame, None if there is none, and why it is this one.

    Args:
        source: what training saved.
        tokenizer: the model's.
        raw: whether prompts stay as they are.
        dataset: a data set whose prompt is taken.
        template: a chat template's name.

    Raises:
        UsageError: if the template does not go with the tokenizer, or what was saved is damaged.
    """
    if raw:
        return None, "prompts stay as they are"
    if dataset:
        return Frame(PROMPT, PROMPTS[dataset]), f"prompts are put as in {dataset}"
    if template:
        return chat_frame(template, tokenizer, TEMPLATE_FLAG), f"the chat template is {template}"
    saved = find_frame(source.folder)
    if saved:
        return read_frame(saved), f"prompts are put as in training ({saved}; not with --raw)"
    return None, f"prompts stay as they are: there is no {FRAME_FILE} in {source.folder}"

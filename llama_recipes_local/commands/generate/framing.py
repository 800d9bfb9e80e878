"""Which prompt template is used: the one that flags name, or the one that training saved."""

from typing import Any

from llama_recipes_local.commands.generate.model_source import Source
from llama_recipes_local.datasets.prompt_template import (
    PROMPT,
    PROMPT_TEMPLATE_FILE,
    PromptTemplate,
    chat_prompt_template,
    find_prompt_template,
    read_prompt_template,
)
from llama_recipes_local.prompts import PROMPTS

TEMPLATE_FLAG = "--template"


def choose_prompt_template(
    source: Source,
    tokenizer: Any,
    raw: bool = False,
    dataset: str | None = None,
    template: str | None = None,
) -> tuple[PromptTemplate | None, str]:
    """Return the prompt template, None if there is none, and why it is this one.

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
        return PromptTemplate(PROMPT, PROMPTS[dataset]), f"the prompt template is that of {dataset}"
    if template:
        chosen = chat_prompt_template(template, tokenizer, TEMPLATE_FLAG)
        return chosen, f"the chat template is {template}"
    saved = find_prompt_template(source.folder)
    if saved:
        why = f"the prompt template is that of training ({saved}; not with --raw)"
        return read_prompt_template(saved), why
    return None, f"prompts stay as they are: there is no {PROMPT_TEMPLATE_FILE} in {source.folder}"

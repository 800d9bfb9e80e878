"""What a model is asked in a data set's validation part, and every answer that people gave."""

from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from llama_recipes_local.datasets.base import PromptFormatter, Split, text_of
from llama_recipes_local.datasets.examples import Continuation, Example, Marked, Pair
from llama_recipes_local.errors import refusal


@dataclass
class Question:
    """What a model is asked.

    Attributes:
        prompt: the whole text to go on from.
        source: the text in the prompt; empty where that cannot be told.
        references: the answers in the data, in its order.
    """

    prompt: str
    source: str
    references: list[str] = field(default_factory=list)


def questions(split: Split, tokenizer: Any, most: int = 0) -> list[Question]:
    """Return a split's prompts, each once with all its references.

    Args:
        split: the split.
        tokenizer: the model's.
        most: how many at most; 0 means all.

    Raises:
        UsageError: if the data set has no prompts with responses.
    """
    found: dict[str, Question] = {}
    for record in split.records():
        example = split.formatter(record, tokenizer)
        if example is None:
            continue
        prompt, response = _parted(example, record[0], tokenizer)
        formatter: Any = split.formatter
        prompted = isinstance(formatter, PromptFormatter)
        source = text_of(record, formatter.text) if prompted else ""
        found.setdefault(prompt, Question(prompt, source)).references.append(response)
    return list(islice(found.values(), most or None))


def _parted(example: Example, where: str, tokenizer: Any) -> tuple[str, str]:
    """Return what the model goes on from, and what it is to say."""
    bos = tokenizer.bos_token or ""
    if isinstance(example, (Pair, Continuation)):
        return bos + example.prompt, example.response
    if isinstance(example, Marked) and example.spans:
        start, end = example.spans[-1]
        begin = "" if example.complete else bos
        said = tokenizer.decode(
            tokenizer(example.text[start:end], add_special_tokens=False)["input_ids"],
            skip_special_tokens=True,
        )
        return begin + example.text[:start], said.strip()
    raise refusal(
        f"{where} has no prompt with a response",
        "all of its text is trained, so there is nothing that a model could be asked",
        "measure the loss alone: --metrics loss,perplexity",
    )

"""The prompts of a data set's validation part, each with all of its reference answers."""

from dataclasses import dataclass, field
from itertools import islice

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.datasets.base import PromptFormatter, Split, text_of
from llama_recipes_local.datasets.examples import Continuation, Example, Marked, Pair
from llama_recipes_local.datasets.token_ids import begun, text_ids
from llama_recipes_local.errors import refusal


@dataclass
class Question:
    """A prompt and its reference answers.

    Attributes:
        prompt: the whole text that the model completes.
        source: the text in the prompt; empty where that is not known.
        references: the answers in the data, in its order.
    """

    prompt: str
    source: str
    references: list[str] = field(default_factory=list)


def questions(split: Split, tokenizer: PreTrainedTokenizerBase, most: int = 0) -> list[Question]:
    """Return a split's prompts, each once with all its references.

    Args:
        split: the split.
        tokenizer: the model's.
        most: the maximum number of prompts; 0 means all.

    Raises:
        UsageError: if the data set has no prompts with responses.
    """
    found: dict[str, Question] = {}
    formatter = split.formatter
    for record in split.records():
        example = formatter(record, tokenizer)
        if example is None:
            continue
        prompt, response = _prompt_and_response(example, record[0], tokenizer)
        source = text_of(record, formatter.text) if isinstance(formatter, PromptFormatter) else ""
        found.setdefault(prompt, Question(prompt, source)).references.append(response)
    return list(islice(found.values(), most or None))


def _prompt_and_response(
    example: Example, where: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, str]:
    """Return what the model completes, and the response in the data."""
    if isinstance(example, Pair):
        return begun(example.prompt, tokenizer, example.begins), example.response
    if isinstance(example, Continuation):
        return begun(example.prompt, tokenizer), example.response
    if isinstance(example, Marked) and example.spans:
        start, end = example.spans[-1]
        (ids,) = text_ids(tokenizer, [example.text[start:end]])
        response = tokenizer.decode(ids, skip_special_tokens=True)
        prompt = example.text[:start]
        return prompt if example.complete else begun(prompt, tokenizer), str(response).strip()
    raise refusal(
        f"{where} has no prompt with a response",
        "all of its text is trained, so there is nothing that a model could be asked",
        "measure the loss alone: --metrics loss,perplexity",
    )

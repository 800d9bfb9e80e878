"""Records made into examples, and what of them is trained."""

import copy
from typing import Any

import pytest

from llama_recipes_local.datasets.examples import Marked
from llama_recipes_local.datasets.layouts import find_layout
from llama_recipes_local.datasets.rows import RowFormatter
from llama_recipes_local.errors import Problem, UsageError

# An instruct model's: a system turn of its own where there is none.
PLAIN = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nI help.<|im_end|>\n' }}"
    "{% endif %}{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


SYSTEM = "<|im_start|>system\nI help.<|im_end|>\n"


def example(record: dict[str, Any], tokenizer: Any, own: str = "", **options: str) -> Any:
    """A record as a line of a file becomes an example."""
    if own:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.chat_template = own
    place = ("line 1 of a.jsonl", record)
    layout = find_layout(place, "auto", {})
    chosen = {"template": "auto", "labels": "assistant"} | options
    return RowFormatter(layout, **chosen)(place, tokenizer)


def labels(record: dict[str, Any], tokenizer: Any, own: str = "", **options: str) -> list[str]:
    """The stretches of a record that are trained."""
    made = example(record, tokenizer, own, **options)
    assert isinstance(made, Marked) and made.spans is not None
    return [made.text[start:end] for start, end in made.spans]


def refused(record: dict[str, Any], tokenizer: Any, own: str = "", **options: str) -> Problem:
    with pytest.raises(UsageError) as error:
        example(record, tokenizer, own, **options)
    (problem,) = error.value.problems
    return problem


def turns(*said: Any) -> dict[str, Any]:
    """Messages, of the user and the assistant in turn unless they are whole."""
    messages = []
    for number, each in enumerate(said):
        role = ("user", "assistant")[number % 2]
        messages.append(each if isinstance(each, dict) else {"role": role, "content": each})
    return {"messages": messages}

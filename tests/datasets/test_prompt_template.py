"""What generation begins with is, token by token, what training's labels followed."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import configs
from llama_recipes_local.data.token_rows import IGNORE_INDEX
from llama_recipes_local.datasets import alpaca, grammar, guanaco, samsum
from llama_recipes_local.datasets.encoding import encode
from llama_recipes_local.datasets.layouts import Layout
from llama_recipes_local.datasets.prompt_template import (
    CHAT,
    PROMPT_TEMPLATE_FILE,
    PromptTemplate,
    read_prompt_template,
    save_prompt_template,
)
from llama_recipes_local.datasets.rows import RowFormatter
from llama_recipes_local.datasets.templates import TEMPLATES
from llama_recipes_local.errors import UsageError

TEXT = "She {} go\nto {0} school."
MESSAGES = Layout("messages", (("messages", "messages"),))
PROMPTED = Layout("prompt", (("prompt", "prompt"), ("completion", "completion")))
INSTRUCTED = Layout(
    "instruction", (("instruction", "instruction"), ("input", "input"), ("output", "output"))
)
PLAIN = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def turns(*said: str) -> list[dict[str, str]]:
    return [
        {"role": ("user", "assistant")[number % 2], "content": text}
        for number, text in enumerate(said)
    ]


@pytest.fixture(scope="module")
def chatty(tokenizer: Any) -> Any:
    """The tiny tokenizer with every format's special tokens and a template of its own."""
    own = copy.deepcopy(tokenizer)
    own.add_special_tokens(
        {
            "additional_special_tokens": [
                token for each in TEMPLATES.values() for token in each.tokens
            ]
        }
    )
    own.chat_template = PLAIN
    return own


def alpaca_formatter(folder: Path) -> Any:
    path = folder / "alpaca_data.json"
    path.write_text(json.dumps([{"instruction": "a", "output": "b"}] * 3))
    return alpaca.split(configs.alpaca_dataset(data_path=str(path)), "train").formatter


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "grammar": (grammar.FORMATTER, {"input": TEXT, "target": "Yes"}),
    "samsum": (samsum.FORMATTER, {"dialogue": TEXT, "summary": "Yes"}),
    "alpaca": (alpaca_formatter, {"instruction": TEXT, "output": "Yes"}),
    "guanaco": (guanaco.TurnFormatter(), {"text": f"### Human: {TEXT}### Assistant: Yes"}),
    "prompt": (RowFormatter(PROMPTED, "none", "assistant"), {"prompt": TEXT, "completion": "Yes"}),
    "instruction": (
        RowFormatter(INSTRUCTED, "none", "assistant"),
        {"instruction": TEXT, "output": "Yes"},
    ),
    "instruction in alpaca": (
        RowFormatter(INSTRUCTED, "alpaca", "assistant"),
        {"instruction": TEXT, "output": "Yes"},
    ),
    "instruction in chatml": (
        RowFormatter(INSTRUCTED, "chatml", "assistant"),
        {"instruction": TEXT, "output": "Yes"},
    ),
    **{
        f"messages in {name}": (
            RowFormatter(MESSAGES, name, "assistant"),
            {"messages": turns(TEXT, "Yes")},
        )
        for name in ("tokenizer", *TEMPLATES)
    },
}


def begun(formatter: Any, values: Any, tokenizer: Any) -> list[int]:
    """The tokens of a record before its last trained stretch."""
    (sample,) = encode(tokenizer, [formatter(("it", values), tokenizer)])
    trained = [label != IGNORE_INDEX for label in sample["labels"]]
    last = len(trained) - 1 - trained[::-1].index(True)
    start = last
    while trained[start - 1]:
        start -= 1
    return sample["input_ids"][:start]


@pytest.mark.parametrize("case", CASES)
def test_a_prompt_is_tokenised_as_in_training(case: str, chatty: Any, tmp_path: Path) -> None:
    formatter, values = CASES[case]
    if case == "alpaca":
        formatter = formatter(tmp_path)
    save_prompt_template(formatter.prompt_template(chatty), tmp_path)
    template = read_prompt_template(tmp_path / PROMPT_TEMPLATE_FILE)
    expected = begun(formatter, values, chatty)
    assert len(expected) > 10
    assert chatty(template.of_text(TEXT, chatty), add_special_tokens=False)["input_ids"] == expected


@pytest.mark.parametrize("name", ["guanaco data", "tokenizer", *TEMPLATES])
def test_later_turns_are_tokenised_as_in_training(name: str, chatty: Any) -> None:
    said = ("Hi", "Yo", TEXT, "Yes")
    formatter: Any = RowFormatter(MESSAGES, name, "assistant")
    values: dict[str, Any] = {"messages": turns(*said)}
    if name == "guanaco data":
        formatter = guanaco.TurnFormatter()
        text = "".join(
            f"### {('Human', 'Assistant')[number % 2]}: {text}" for number, text in enumerate(said)
        )
        values = {"text": text}
    text = formatter.prompt_template(chatty).of_turns(turns(*said[:3]), chatty)
    assert chatty(text, add_special_tokens=False)["input_ids"] == begun(formatter, values, chatty)


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("tokenizer", "</s>[user]"),
        ("llama2", "</s><s>[INST]"),
        ("llama3", "<|eot_id|><|start_header_id|>user<|end_header_id|>"),
        ("chatml", "<|im_end|>\n<|im_start|>user"),
        ("guanaco", "### Human:"),
    ],
)
def test_the_text_between_two_turns_is_found(name: str, end: str, chatty: Any) -> None:
    template = RowFormatter(MESSAGES, name, "assistant").prompt_template(chatty)
    assert template.end_of_turn(chatty) == end
    assert grammar.FORMATTER.prompt_template(chatty).end_of_turn(chatty) == ""


def test_the_prompt_template_of_an_earlier_run_is_removed(tmp_path: Path) -> None:
    save_prompt_template(PromptTemplate("prompt", "{}"), tmp_path)
    save_prompt_template(None, tmp_path)
    assert not (tmp_path / PROMPT_TEMPLATE_FILE).exists()


@pytest.mark.parametrize("text", ["[]", "{", '{"kind": "x", "template": "", "complete": false}'])
def test_a_file_that_is_not_a_prompt_template_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / PROMPT_TEMPLATE_FILE
    path.write_text(text)
    with pytest.raises(UsageError, match="--raw"):
        read_prompt_template(path)


def test_a_template_from_a_folder_runs_no_code(chatty: Any) -> None:
    """The sandbox hides what leads from a text to Python's own."""
    escape = "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ messages[0].content }}"
    with pytest.raises(UsageError, match="unsafe"):
        PromptTemplate(CHAT, escape).of_text("Hi", chatty)
    template = PromptTemplate("prompt", "{0.__class__} {}")
    assert template.of_text("Hi", chatty) == "<s>{0.__class__} Hi"

"""Guanaco's conversations: what is trained, worked out by hand."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import configs
from llama_recipes_local.datasets.base import find_split
from llama_recipes_local.datasets.examples import Marked
from llama_recipes_local.datasets.guanaco import TurnFormatter
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import UsageError
from llama_recipes_local.utils.dataset_utils import get_preprocessed_dataset

TRAIN, TEST = "openassistant_best_replies_train.jsonl", "openassistant_best_replies_eval.jsonl"


def trained(text: str) -> list[str]:
    """The stretches of a text that are trained."""
    marked = TurnFormatter()(("line 1", {"text": text}))
    assert marked is not None and marked.spans is not None and marked.text == text
    return [text[start:end] for start, end in marked.spans]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("### Human: hi### Assistant: hello", [" hello"]),
        (
            "### Human: a### Assistant: b\n### Human: c ### Assistant: d\n\n",
            [" b\n", " d\n\n"],
        ),
        ("### Human: a### Assistant: b### Human: c", [" b"]),
        ("### Assistant: b### Human: c", [" b"]),
        ("### Human: a### Assistant: b### Assistant: c", [" b", " c"]),
        ("### Human: a### Assistant: # not ## a ### marker", [" # not ## a ### marker"]),
        ("### Human: a### Assistant: \n### Human: b### Assistant: c", [" c"]),
        ("### Human: only asks", []),
    ],
)
def test_assistant_turns_alone_are_trained(text: str, expected: list[str]) -> None:
    assert trained(text) == expected


def test_spans_are_characters_of_the_text() -> None:
    marked = TurnFormatter()(("line 1", {"text": "### Human: ü😀### Assistant: é"}))
    assert marked == Marked("### Human: ü😀### Assistant: é", ((27, 29),))


def write(folder: Path, packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in ((TRAIN, 3), (TEST, 1)):
        rows = [{"text": f"### Human: {n}?### Assistant: {n}!"} for n in range(count)]
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("layout", [".", "data"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_clone(layout: str, packed: bool, tmp_path: Path, tokenizer: Any) -> None:
    write(tmp_path / layout, packed)
    config = configs.guanaco_dataset(data_path=str(tmp_path))
    assert len(get_preprocessed_dataset(tokenizer, config, "train")) == 3
    (sample,) = get_preprocessed_dataset(tokenizer, config, "test")
    assert tokenizer.decode(sample["input_ids"]) == "<s>### Human: 0?### Assistant: 0!</s>"
    labels = [label for label in sample["labels"] if label != -100]
    assert tokenizer.decode(labels) == " 0!</s>"


def examples(path: Path) -> list[Any]:
    split = find_split(
        DATASETS["guanaco_dataset"], configs.guanaco_dataset(data_path=str(path)), "train"
    )
    return [split.formatter(record, None) for record in split.records()]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "what", "why"),
    [
        (None, "no " + TRAIN + " in {folder}", "searched in {folder} and {folder}/data"),
        ('{"text": "no turns"}', "'text' in line 1 of {file} has no turns", "'### Human:'"),
        ('{"content": "a"}', "line 1 of {file} has no 'text'", "its keys are content"),
        ('{"text": "### Hu', "line 1 of {file} is not JSON", "Unterminated string"),
    ],
)
def test_what_is_wrong(content: str | None, what: str, why: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / TRAIN).write_text(content)
    with pytest.raises(UsageError) as caught:
        examples(tmp_path)
    (problem,) = caught.value.problems
    places = {"folder": tmp_path, "file": tmp_path / TRAIN}
    assert problem.what == what.format(**places)
    assert why.format(**places) in problem.why


def test_a_blank_text_is_no_example(tmp_path: Path) -> None:
    (tmp_path / TRAIN).write_text('{"text": " "}\n{"text": null}\n')
    assert examples(tmp_path) == [None, None]


def test_a_file_is_read_instead_of_its_compressed_copy(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, packed=True)
    assert len(examples(tmp_path)) == 3

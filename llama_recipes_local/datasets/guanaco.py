"""OpenAssistant-Guanaco: conversations as one text, of which the assistant's turns are trained."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

from llama_recipes_local.datasets.base import Dataset, Split, is_blank, text_of, unused_columns
from llama_recipes_local.datasets.examples import Marked
from llama_recipes_local.datasets.locating import (
    EVERY_RECORD,
    data_files_in,
    one_set,
    read_all,
    what_is_there,
)
from llama_recipes_local.datasets.prompt_template import CHAT, PromptTemplate
from llama_recipes_local.errors import refusal
from llama_recipes_local.fields import FOLDER, TEXT, Resume
from llama_recipes_local.records.checked_values import Record
from llama_recipes_local.records.source import Source
from llama_recipes_local.storage import data_root

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


HUMAN, ASSISTANT = "### Human:", "### Assistant:"
COLUMN = "text"
FILES = {
    "train": "openassistant_best_replies_train.jsonl",
    "test": "openassistant_best_replies_eval.jsonl",
}
FIX = "put them there, or name the clone's folder: --guanaco_dataset.data_path=DIR"
# The turns as the data set writes them; the assistant's words begin with the space.
_TURNS = """
{{%- for message in messages -%}}
    {{%- if message.role == 'assistant' -%}}
        {{{{ '{assistant} ' + message.content | trim }}}}
    {{%- else -%}}
        {{{{ '{human} ' + message.content | trim }}}}
    {{%- endif -%}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}{{{{ '{assistant}' }}}}{{%- endif -%}}
"""


@dataclass
class guanaco_dataset:
    """OpenAssistant-Guanaco: conversations of which the assistant's turns are trained."""

    dataset: Annotated[str, TEXT, Resume.FREE] = "guanaco_dataset"
    train_split: Annotated[str, TEXT, Resume.DATA] = "train"
    test_split: Annotated[str, TEXT, Resume.DATA] = "test"
    """The file whose name ends in ``_eval.jsonl``."""

    data_path: Annotated[str, FOLDER, Resume.DATA] = "datasets/openassistant-guanaco"
    """Folder with ``openassistant_best_replies_train.jsonl`` and
    ``openassistant_best_replies_eval.jsonl``, in it or in its ``data/``."""

    data_root: Annotated[str, FOLDER, Resume.FREE] = ""


@dataclass(frozen=True)
class TurnFormatter:
    """Marks what follows each assistant's marker, up to the next marker or the end.

    Attributes:
        human: what a human's turn begins with.
        assistant: what an assistant's turn begins with.
    """

    human: str = HUMAN
    assistant: str = ASSISTANT

    def __call__(
        self, record: Record, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> Marked | None:
        """Return the record's text with its spans, or None if it is blank.

        Raises:
            UsageError: if the text has no turns.
        """
        text = text_of(record, COLUMN)
        if is_blank(text):
            return None
        pattern = f"{re.escape(self.human)}|{re.escape(self.assistant)}"
        markers = list(re.finditer(pattern, text))
        if not markers:
            why = f"its turns begin with {self.human!r} and {self.assistant!r}"
            raise refusal(f"{COLUMN!r} in {record[0]} has no turns", why)
        ends = [marker.start() for marker in markers[1:]] + [len(text)]
        spans = (
            (marker.end(), end)
            for marker, end in zip(markers, ends, strict=True)
            if marker[0] == self.assistant and not is_blank(text[marker.end() : end])
        )
        return Marked(text, tuple(spans), notes=unused_columns(record[1], (COLUMN,)))

    def prompt_template(self, tokenizer: PreTrainedTokenizerBase) -> PromptTemplate:
        """Return the prompt template of turns."""
        return PromptTemplate(CHAT, _TURNS.format(human=self.human, assistant=self.assistant))


def split(config: guanaco_dataset, name: str) -> Split:
    """Return the split "train" or "test".

    Raises:
        UsageError: if its file is not there.
    """
    sources = find(config, name)
    files = tuple(source.path for source in sources)
    return Split(files, EVERY_RECORD, partial(read_all, sources, (COLUMN,)), TurnFormatter())


def find(config: guanaco_dataset, name: str) -> tuple[Source, ...]:
    """Return a split's file, in the folder or its ``data/``.

    Raises:
        UsageError: if it is not there, or packed in two ways.
    """
    root = data_root.resolve(config.data_path, config.data_root)
    file = FILES.get(name, name)
    folders = [root, root / "data"]
    for folder in folders:
        found = [path for path in data_files_in(folder) if path.name.startswith(file)]
        if found:
            return tuple(map(Source, one_set(found, file, FIX)))
    why = f"{what_is_there(folders)}; read are {' and '.join(FILES.values())}"
    raise refusal(f"no {file} in {root}", why, FIX)


DATASET = Dataset(
    config=guanaco_dataset,
    split=split,
    flag="--guanaco_dataset.data_path=DIR",
)

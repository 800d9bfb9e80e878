"""The data set configurations: upstream's fields, local paths.

Relative paths start from the data root; see ``llama_recipes_local.storage.data_root``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_recipes_local._upstream import load

if TYPE_CHECKING:
    from llama_recipes_local._vendor.llama_recipes.configs.datasets import (
        alpaca_dataset as _alpaca_dataset,
    )
    from llama_recipes_local._vendor.llama_recipes.configs.datasets import (
        custom_dataset as _custom_dataset,
    )
    from llama_recipes_local._vendor.llama_recipes.configs.datasets import (
        grammar_dataset as _grammar_dataset,
    )
    from llama_recipes_local._vendor.llama_recipes.configs.datasets import (
        llamaguard_toxicchat_dataset as _llamaguard_toxicchat_dataset,
    )
    from llama_recipes_local._vendor.llama_recipes.configs.datasets import (
        samsum_dataset as _samsum_dataset,
    )
else:
    _alpaca_dataset = load("configs.datasets").alpaca_dataset
    _custom_dataset = load("configs.datasets").custom_dataset
    _grammar_dataset = load("configs.datasets").grammar_dataset
    _llamaguard_toxicchat_dataset = load("configs.datasets").llamaguard_toxicchat_dataset
    _samsum_dataset = load("configs.datasets").samsum_dataset


@dataclass
class samsum_dataset(_samsum_dataset):
    """SAMSum: dialogues and their summaries; nothing remote is run, so nothing is trusted."""

    data_path: str = "datasets/samsum/"
    """Folder with ``corpus.7z``, or with json, jsonl, csv or parquet files named ``train*``,
    ``val*`` and ``test*``; in it or in its ``data/``. Also the archive itself."""


@dataclass
class grammar_dataset(_grammar_dataset):
    """Grammar correction: two CSV files with the columns ``input`` and ``target``."""

    train_split: str = "datasets/grammar/gtrain_10k.csv"
    """The file to train on."""

    test_split: str = "datasets/grammar/grammar_validation.csv"
    """The file to evaluate on."""


@dataclass
class alpaca_dataset(_alpaca_dataset):
    """Alpaca: records of instruction, input and output; the first 5% is for validation."""

    data_path: str = "datasets/alpaca_data.json"
    """The file, a JSON list or an object a line, or the folder that holds it."""


@dataclass
class guanaco_dataset:
    """OpenAssistant-Guanaco: conversations of which the assistant's turns are trained."""

    dataset: str = "guanaco_dataset"
    train_split: str = "train"
    test_split: str = "test"
    """The file whose name ends in ``_eval.jsonl``."""

    data_path: str = "datasets/openassistant-guanaco"
    """Folder with ``openassistant_best_replies_train.jsonl`` and
    ``openassistant_best_replies_eval.jsonl``, in it or in its ``data/``."""


@dataclass
class custom_dataset(_custom_dataset):
    """A data set of the user's own: ``file.py`` or ``file.py:function``."""

    file: str = "datasets/custom_dataset.py"
    """The file; ``file.py:function`` calls another function of it than ``get_custom_dataset``. It
    is run, so it is taken from this flag alone."""


@dataclass
class llamaguard_toxicchat_dataset(_llamaguard_toxicchat_dataset):
    """ToxicChat for Llama Guard."""

    data_path: str = "datasets/toxic-chat/"
    """Folder with toxic-chat's csv or parquet files, in it or below; of two releases, 0124's."""


@dataclass
class local_dataset:
    """Data of the user's own: jsonl, json, csv, tsv or parquet, columns found by themselves."""

    dataset: str = "local_dataset"
    train_split: str = "train"
    test_split: str = "validation"
    data_path: str = "datasets/local/"
    """A file, a folder or a glob pattern; compressed files too."""
    validation_path: str = ""
    """The same for validation. "" takes the files named for it (validation, val, eval, dev or test)
    if ``data_path`` has some beside those named train, and else holds rows out."""
    validation_fraction: float = 0.05
    """The share of rows held out where there are no files for validation: 0.05 is every 20th row,
    beginning with the first. Above 0, at most 0.5."""
    format: str = "auto"
    """What a record is: "instruction", "prompt", "conversations", "messages" or "text"; "auto"
    tells by the first record's columns."""
    columns: str = ""
    """Columns of other names, as ``prompt=question,completion=answer``; "" finds them."""
    template: str = "auto"
    """How a record becomes text: "tokenizer" is the chat template of the model's folder, "llama2",
    "llama3", "chatml" and "guanaco" are public chat formats, "alpaca" is Alpaca's prompt, "none"
    adds nothing. "auto" is tokenizer for turns, alpaca for instructions, none for the others."""
    labels: str = "assistant"
    """What is trained: "assistant" is what the assistant says (a completion, an output, and all of
    plain text), "all" is everything."""
    streaming: bool = False
    """Whether rows are read and tokenised as training goes, for more data than is worth a cache."""

"""The data set configurations: upstream's fields, local paths.

Relative paths start from the data root; see ``llama_recipes_local.paths``.
"""

from dataclasses import dataclass

from llama_recipes_local._upstream import load

_upstream = load("configs.datasets")


@dataclass
class samsum_dataset(_upstream.samsum_dataset):  # type: ignore[misc,name-defined]
    """SAMSum: dialogues and their summaries; nothing remote is run, so nothing is trusted."""

    data_path: str = "datasets/samsum/"
    """Folder with ``train.json``, ``val.json`` and ``test.json``, in it or in its ``data/``."""


@dataclass
class grammar_dataset(_upstream.grammar_dataset):  # type: ignore[misc,name-defined]
    """Grammar correction: two CSV files with the columns ``input`` and ``target``."""

    train_split: str = "datasets/grammar/gtrain_10k.csv"
    test_split: str = "datasets/grammar/grammar_validation.csv"


@dataclass
class alpaca_dataset(_upstream.alpaca_dataset):  # type: ignore[misc,name-defined]
    """Alpaca: a JSON list of instruction, input and output; the first 5% is for validation."""

    data_path: str = "datasets/alpaca_data.json"


@dataclass
class custom_dataset(_upstream.custom_dataset):  # type: ignore[misc,name-defined]
    """A data set of the user's own: ``file.py`` or ``file.py:function``."""

    file: str = "datasets/custom_dataset.py"


@dataclass
class llamaguard_toxicchat_dataset(_upstream.llamaguard_toxicchat_dataset):  # type: ignore[misc,name-defined]
    """ToxicChat for Llama Guard."""

    data_path: str = "datasets/toxic-chat/"
    """Folder with the toxic-chat CSV files, in it or in its ``data/0124/``."""

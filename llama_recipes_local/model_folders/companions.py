"""What goes with a model's weights: its tokenizer, generation settings and licence."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from llama_recipes_local.errors import refusal
from llama_recipes_local.files.finding import listing

TOKENIZERS = ("tokenizer.json", "tokenizer.model")
"""One of them is what a tokenizer is loaded from."""

TOKENIZER = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
)
OTHERS = ("generation_config.json", "LICENSE*", "NOTICE*", "USE_POLICY*")


def copy_companions(source: Path, folder: Path) -> None:
    """Copy what goes with the weights in ``source``; links are followed."""
    _copy(source, folder, (*TOKENIZER, *OTHERS))


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Put the tokenizer in ``source`` in the place of the one in ``folder``."""
    for name in TOKENIZER:
        (folder / name).unlink(missing_ok=True)
    _copy(source, folder, TOKENIZER)


def has_tokenizer(folder: Path) -> bool:
    """Tell whether a tokenizer can be loaded from a folder."""
    return any((folder / name).is_file() for name in TOKENIZERS)


def check_tokenizer_folder(folder: Path) -> None:
    """Refuse a folder that was named for its tokenizer and has none.

    Raises:
        UsageError: if there is none.
    """
    place = folder.expanduser().resolve()
    if not has_tokenizer(place):
        mend = "name a folder that has one: --tokenizer_name DIR"
        raise refusal(f"{place} has no tokenizer", listing(place), mend)


def _copy(source: Path, folder: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)

"""Where relative data paths lead: one data root for every data set."""

import os
from pathlib import Path

ENVIRONMENT_VARIABLE = "LLAMA_RECIPES_DATA_ROOT"

_flag: str = ""


def set_data_root(root: str) -> None:
    """Take the data root from the ``--data_root`` flag; an empty string means none was given."""
    global _flag
    _flag = root


def data_root() -> Path:
    """Return the folder that relative data paths start from, absolute.

    It is ``--data_root`` if given, else the environment variable ``LLAMA_RECIPES_DATA_ROOT``, else
    the working directory.
    """
    root = _flag or os.environ.get(ENVIRONMENT_VARIABLE) or "."
    return Path(root).expanduser().resolve()


def resolve(path: str | os.PathLike[str]) -> Path:
    """Return a data path absolute: as it is if it is already, else below the data root."""
    return (data_root() / Path(path).expanduser()).resolve()

"""``--dataset PATH``: a file, folder, glob or mixture instead of a data set's name.

Preflight and ``evaluate`` use this before flags are resolved.
"""

import glob
import os
import re
from collections.abc import Mapping
from typing import Any

from llama_recipes_local.datasets.local import local_dataset
from llama_recipes_local.datasets.mixture import mixed_dataset, split_sources
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import Problem
from llama_recipes_local.records.any_format import format_of
from llama_recipes_local.records.plain_text import is_plain_text
from llama_recipes_local.storage import data_root

_NAME_FLAGS = ("dataset", "train_config.dataset")
_PATH_FLAGS = ("data_path", "local_dataset.data_path")
# what describes the files that a run was trained on, and not how it formats a record
OF_THE_FILES = ("data_path", "validation_path", "columns", "format", "encoding", "documents")


def named_path(flags: Mapping[str, Any]) -> str:
    """Return the path that ``--dataset`` gives; empty if it gives a name, or a mixture."""
    value, root = _named(flags)
    if not value or value in DATASETS or _is_mixture(value, root):
        return ""
    return value if is_path(value, root) else ""


def named_mixture(flags: Mapping[str, Any]) -> str:
    """Return the mixture that ``--dataset`` gives; empty if it gives one data set or path."""
    value, root = _named(flags)
    return value if value and _is_mixture(value, root) else ""


def _named(flags: Mapping[str, Any]) -> tuple[str, str]:
    """Return what ``--dataset`` gives, and the data root; empty if it gives no text."""
    given = next((flags[flag] for flag in _NAME_FLAGS if flag in flags), None)
    value = str(given) if isinstance(given, (str, os.PathLike)) else ""
    return value, str(flags.get("data_root", ""))


def with_data_path(flags: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Return the flags with the path of ``--dataset`` as a flag of ``local_dataset``.

    A mixture becomes a flag of ``mixed_dataset``. There is a problem if another flag names a path
    too.
    """
    path, mixture = named_path(flags), named_mixture(flags)
    others = {name: value for name, value in flags.items() if name not in _NAME_FLAGS}
    if mixture:
        mixed = mixed_dataset.__name__
        return others | {"dataset": mixed, f"{mixed}.sources": mixture}, []
    if not path:
        return flags, []
    twice = [
        Problem(
            f"--dataset {path} with --{name} {others[name]}",
            "both name the data to train on",
            "leave one of them out",
        )
        for name in _PATH_FLAGS
        if name in others and str(others[name]) != path
    ]
    local = local_dataset.__name__
    return others | {"dataset": local, f"{local}.data_path": path}, twice


def _is_data(name: str) -> bool:
    return bool(format_of(name)) or is_plain_text(name)


def _is_mixture(value: str, root: str) -> bool:
    """Return whether a value names several data sets, or a weight; not if a file has this name.

    After the colon of a single name there may be anything, as in ``file.py:function``.
    """
    if value in DATASETS or ("\0" not in value and os.path.exists(data_root.resolve(value, root))):
        return False
    sources = split_sources(value)
    if len(sources) == 1:
        return re.fullmatch("[-+0-9.]*", sources[0][1] or "x") is not None
    weighted = any(weight is not None for _, weight in sources)
    return weighted or all(name in DATASETS or is_path(name, root) for name, _ in sources)


def is_path(value: str, root: str) -> bool:
    """Return whether a value can only be a path: it exists, or is written as one."""
    if os.sep in value or value.startswith("~") or glob.has_magic(value) or _is_data(value):
        return True
    return (
        bool(value.strip()) and "\0" not in value and os.path.exists(data_root.resolve(value, root))
    )

"""``custom_dataset``: a function in a user's Python file.

The file is the user's code and is run as such. Only the flag names it, never anything that is saved
with a model. What is run is printed, with its sha256.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

from llama_recipes_local._upstream import load_alone
from llama_recipes_local.datasets.base import Dataset
from llama_recipes_local.errors import UsageError, refusal
from llama_recipes_local.fields import FOLDER, TEXT, Resume
from llama_recipes_local.messages import missing_path
from llama_recipes_local.storage import data_root

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llama_recipes_local._vendor.llama_recipes.configs.datasets import (
        custom_dataset as _upstreams,
    )
else:
    _upstreams = load_alone("configs.datasets").custom_dataset

FUNCTION = "get_custom_dataset"
COLLATOR = "get_data_collator"
FLAG = "--custom_dataset.file=FILE.py:FUNCTION"


@dataclass
class custom_dataset(_upstreams):
    """A user's own data set: ``file.py`` or ``file.py:function``."""

    dataset: Annotated[str, TEXT, Resume.FREE] = _upstreams.dataset
    train_split: Annotated[str, TEXT, Resume.DATA] = _upstreams.train_split
    test_split: Annotated[str, TEXT, Resume.DATA] = _upstreams.test_split
    data_path: Annotated[str, FOLDER, Resume.DATA] = _upstreams.data_path

    file: Annotated[str, FOLDER, Resume.DATA] = "datasets/custom_dataset.py"
    """The file; ``file.py:function`` calls another function of it than ``get_custom_dataset``. It
    is run, so it is read from this flag alone."""

    data_root: Annotated[str, FOLDER, Resume.FREE] = ""


def location(config: custom_dataset) -> tuple[Path, str]:
    """Return the user's file and the name of the function that is called in it."""
    file, _, function = str(config.file).partition(".py:")
    path = data_root.resolve(file + ".py" if function else file, config.data_root)
    return path, function or FUNCTION


def call(config: custom_dataset, tokenizer: PreTrainedTokenizerBase, split: str) -> Any:
    """Call the user's function, as upstream does, and return what it returns.

    Raises:
        UsageError: if the file does not have the function, or it returns nothing.
    """
    path, name = location(config)
    source = path.read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    print(f"--> custom_dataset runs {name} of {path} (sha256 {digest})")
    module = _module(path, source, digest)
    function = getattr(module, name, None)
    if not callable(function):
        raise refusal(
            f"{path} defines no function {name}",
            f"--custom_dataset.file {config.file} names it",
            f"name one that is there: {FLAG}",
        )
    samples = function(config, tokenizer, split)
    if samples is None:
        what = f"{name} of {path} returned no data set for {split}"
        raise refusal(what, "it returned None", "return a data set or a list of samples")
    return samples


def collator(
    config: custom_dataset, tokenizer: PreTrainedTokenizerBase
) -> Callable[..., Any] | None:
    """Return what the file's ``get_data_collator(tokenizer)`` returns, or None without one.

    That is so also for ``FILE.py:FUNCTION``, where upstream hands the tokenizer to the function
    that makes the data set.
    """
    path, _ = location(config)
    source = path.read_bytes()
    module = _module(path, source, hashlib.sha256(source).hexdigest())
    make = getattr(module, COLLATOR, None)
    return make(tokenizer) if make else None


def _module(path: Path, source: bytes, digest: str) -> ModuleType:
    """Run the file, once in a process for each content, and return it as a module."""
    place = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    name = f"custom_dataset_{place}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def check(config: custom_dataset, name: str) -> None:
    """Check that the file is Python and defines the function; nothing in it is run.

    It is one function whichever split is asked for.

    Raises:
        UsageError: if it is not.
    """
    path, function = location(config)
    if not path.exists():
        raise UsageError([missing_path(path, f"name one: {FLAG}")])
    if path.suffix != ".py" or not path.is_file():
        raise refusal(f"{path} is not a .py file", "it is run as Python", f"name one: {FLAG}")
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise refusal(f"{path} is not Python", str(error)) from error
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    # a function may also be assigned or imported, which only running the file would show
    defined = function in names or any(
        not isinstance(node, (ast.FunctionDef, ast.Expr)) and function in ast.dump(node)
        for node in tree.body
    )
    if not defined:
        raise refusal(
            f"{path} defines no function {function}",
            f"its functions are {', '.join(sorted(names)) or 'none'}",
            f"name one of them: {FLAG}",
        )


DATASET = Dataset(
    config=custom_dataset,
    load=call,
    check=check,
    collator=collator,
)

"""Flags that several commands have: of a new model folder, and those of ``finetuning.py``."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from llama_recipes_local.cli.parsing import one_of

DTYPES = ("bfloat16", "float16", "float32")


def call_with_fire(function: Callable[..., None], args: argparse.Namespace) -> None:
    """Call ``function`` with the flags in ``args.words``, read as ``finetuning.py`` reads them.

    With ``--help`` among them, its help is shown.
    """
    import fire

    # a function that takes any flag would be handed --help as one
    words = ["--", "--help"] if {"--help", "-h"} & set(args.words) else args.words
    fire.Fire(function, command=words, name=args.program)


def add_new_model_flags(
    parser: argparse.ArgumentParser, model: str, dtype: str, default_dtype: str
) -> None:
    """Add ``--model``, ``--out``, ``--tokenizer_name``, ``--dtype`` and ``--format``.

    Args:
        parser: the command's.
        model: which folder ``--model`` is.
        dtype: what ``--dtype`` is the dtype of.
        default_dtype: the dtype if none is given, in words.
    """
    parser.add_argument("--model", "--model_name", metavar="DIR", type=Path, help=model)
    parser.add_argument(
        "--out", required=True, metavar="DIR", type=Path, help="the new model's folder"
    )
    parser.add_argument(
        "--tokenizer_name",
        metavar="DIR",
        type=Path,
        help="the tokenizer's folder (the one used in training)",
    )
    parser.add_argument(
        "--dtype",
        type=one_of(DTYPES),
        metavar="NAME",
        help=f"{dtype}: {', '.join(DTYPES)} ({default_dtype})",
    )
    parser.add_argument(
        "--format",
        type=one_of(_formats),
        metavar="NAME",
        help="the format that the model is written in (safetensors)",
    )


def _formats() -> Iterable[str]:
    from llama_recipes_local.model_folders.export import FORMATS

    return FORMATS

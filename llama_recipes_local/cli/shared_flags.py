"""Flags that several commands share: those for a new model folder, and those of finetuning.py."""

import argparse
from collections.abc import Iterable

from llama_recipes_local.cli.parsing import one_of, path

DTYPES = ("bfloat16", "float16", "float32")

DEFAULTS = "Defaults are in parentheses.\n"
OF_FINETUNING = """
It also accepts the flags of finetuning.py, above all those of the model and the data:
  --model_name DIR              the model's folder (--model is the same)
  --dataset NAME|PATH           a data set, or a file, folder or glob of yours
  --local_dataset.FIELD VALUE   for your own files; other data sets likewise
`llama-recipes-local finetune --help` lists them all.
"""


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
    parser.add_argument("--model", "--model_name", metavar="DIR", type=path, help=model)
    parser.add_argument(
        "--out", required=True, metavar="DIR", type=path, help="the new model's folder"
    )
    add_tokenizer_flag(parser)
    parser.add_argument(
        "--dtype",
        type=one_of(DTYPES),
        metavar="NAME",
        help=f"{dtype}: {', '.join(DTYPES)} ({default_dtype})",
    )
    parser.add_argument(
        "--format",
        type=one_of(_formats, slow=True),
        metavar="NAME",
        help="the format that the model is written in (safetensors)",
    )


def add_tokenizer_flag(parser: argparse._ActionsContainer) -> None:
    """Add ``--tokenizer_name``."""
    parser.add_argument(
        "--tokenizer_name",
        metavar="DIR",
        type=path,
        help="the tokenizer's folder (the one used in training, or the model's)",
    )


def add_other_base_flag(parser: argparse._ActionsContainer) -> None:
    """Add ``--allow_other_base``."""
    parser.add_argument(
        "--allow_other_base",
        action="store_true",
        help="allow an adapter on another base model than the one that it was trained on",
    )


def _formats() -> Iterable[str]:
    from llama_recipes_local.export_formats import FORMATS

    return FORMATS

"""Flags of the commands that make a new model's folder of an old one's."""

import argparse
from pathlib import Path

from llama_recipes_local.cli.parsing import one_of

DTYPES = ("bfloat16", "float16", "float32")


def add_new_model_flags(
    parser: argparse.ArgumentParser, model: str, dtype: str, otherwise: str
) -> None:
    """Add ``--model``, ``--out``, ``--tokenizer_name`` and ``--dtype``.

    Args:
        parser: the command's.
        model: what the old model's folder is.
        dtype: what the dtype is of.
        otherwise: which dtype that is if none is named.
    """
    parser.add_argument("--model", "--model_name", metavar="DIR", type=Path, help=model)
    parser.add_argument(
        "--out", required=True, metavar="DIR", type=Path, help="the new model's folder"
    )
    parser.add_argument(
        "--tokenizer_name",
        metavar="DIR",
        type=Path,
        help="folder of the tokenizer that goes with the model (the one that training used)",
    )
    parser.add_argument(
        "--dtype",
        type=one_of(DTYPES),
        metavar="NAME",
        help=f"{dtype}: {', '.join(DTYPES)} ({otherwise})",
    )

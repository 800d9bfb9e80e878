"""Commands that take the flags of ``finetuning.py`` beside their own, read as it reads them."""

import argparse
from collections.abc import Callable


def call(function: Callable[..., None], args: argparse.Namespace) -> None:
    """Call ``function`` with the flags in ``args.words``, or tell its flags where help is asked."""
    import fire

    # a function that takes any flag would be handed --help as one
    words = ["--", "--help"] if {"--help", "-h"} & set(args.words) else args.words
    fire.Fire(function, command=words, name=args.program)

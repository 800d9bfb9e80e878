"""Measure a model on a data set's validation part, or compare two results."""

import argparse


def run(args: argparse.Namespace) -> None:
    """Hand ``args.words`` to ``evaluating.command.evaluate`` as ``fire`` reads them."""
    import fire

    from llama_recipes_local.evaluating.command import evaluate

    fire.Fire(evaluate, command=args.words, name=args.program)

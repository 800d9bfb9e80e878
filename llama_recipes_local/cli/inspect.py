"""Show what the model will see of a data set: rows, a packed row, the audit, the lengths."""

import argparse


def run(args: argparse.Namespace) -> None:
    """Hand ``args.words`` to ``inspection.command.inspect`` as ``fire`` reads them."""
    import fire

    from llama_recipes_local.inspection.command import inspect

    fire.Fire(inspect, command=args.words, name=args.program)

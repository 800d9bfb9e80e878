"""Fine-tune a model from a local folder on local data, with the flags of finetuning.py."""

import argparse


def run(args: argparse.Namespace) -> None:
    """Call ``finetuning.main`` with ``args.words`` through ``fire``, as ``finetuning.py`` does."""
    import fire

    from llama_recipes_local.finetuning import main

    fire.Fire(main, command=args.words, name=args.program)

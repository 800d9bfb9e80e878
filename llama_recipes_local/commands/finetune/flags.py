"""Fine-tune a model from a local folder on local data, with the flags of finetuning.py."""

import argparse


def run(args: argparse.Namespace) -> None:
    """Hand ``args.words`` to ``finetuning.main`` as ``fire`` does for ``finetuning.py``."""
    import fire

    from llama_recipes_local.finetuning import main

    fire.Fire(main, command=args.words, name=args.program)

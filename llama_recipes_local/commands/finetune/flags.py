"""Fine-tune a model from a local folder on local data, with the flags of finetuning.py."""

import argparse

from llama_recipes_local.typed_words import read_words


def run(args: argparse.Namespace) -> None:
    """Call ``finetuning.finetune`` with ``args.words``, read as ``finetuning.py`` reads its own."""
    from llama_recipes_local.finetuning import finetune

    finetune(*read_words(args.words))

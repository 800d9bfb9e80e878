"""Make a Hugging Face folder of a sharded checkpoint: this package's, or upstream's."""

import argparse
from pathlib import Path

from llama_recipes_local.cli.parsing import one_of

DTYPES = ("bfloat16", "float16", "float32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        type=Path,
        help="folder of shard-*.safetensors, or of .metadata and *.distcp",
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", type=Path, help="the new model's folder"
    )
    parser.add_argument(
        "--model",
        "--model_name",
        metavar="DIR",
        type=Path,
        help="folder of the model that was trained (the one that train_params.yaml names)",
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
        help=f"what the weights are saved in: {', '.join(DTYPES)} (as in the checkpoint)",
    )


def run(args: argparse.Namespace) -> None:
    """Convert, and say where the model is."""
    import torch

    from llama_recipes_local.converting import Conversion, convert

    convert(
        Conversion(
            checkpoint=args.checkpoint,
            out=args.out,
            model=args.model,
            tokenizer=args.tokenizer_name,
            dtype=getattr(torch, args.dtype) if args.dtype else None,
        )
    )

"""Convert a sharded checkpoint, other weight files or a GGUF file to a Hugging Face folder."""

import argparse

from llama_recipes_local.cli.parsing import path
from llama_recipes_local.cli.shared_flags import add_new_model_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        type=path,
        help="folder with shard-*.safetensors, or with .metadata and *.distcp; or a "
        "checkpoint-STEP of a run without an adapter; or a model's, with pytorch_model*.bin, with "
        "shards that have no index, or with Meta's params.json and consolidated.*.pth; or a GGUF "
        "file",
    )
    add_new_model_flags(
        parser,
        model="folder of the model that was trained, for its configuration and frozen weights "
        "(the one that the checkpoint names)",
        dtype="dtype of the saved weights",
        default_dtype="as in the checkpoint",
    )


def run(args: argparse.Namespace) -> None:
    """Convert, and print the new folder."""
    from llama_recipes_local.api.quick_imports import quick_imports

    with quick_imports():
        import torch

        from llama_recipes_local.commands.convert.command import Conversion, convert
        from llama_recipes_local.export_formats import DEFAULT_FORMAT

    convert(
        Conversion(
            checkpoint=args.checkpoint,
            out=args.out,
            model=args.model,
            tokenizer=args.tokenizer_name,
            dtype=getattr(torch, args.dtype) if args.dtype else None,
            format=args.format or DEFAULT_FORMAT,
        )
    )

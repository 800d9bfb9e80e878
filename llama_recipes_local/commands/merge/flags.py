"""Merge a LoRA adapter into its base model, to a new folder that plain transformers loads."""

import argparse

from llama_recipes_local.cli.parsing import one_of, path
from llama_recipes_local.cli.shared_flags import add_new_model_flags, add_other_base_flag


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "--adapter", required=True, metavar="DIR", type=path, help="folder of the saved adapter"
    )
    add_new_model_flags(
        parser,
        model="the base model's folder (the one that the adapter names)",
        dtype="dtype of the merge and of the result",
        default_dtype="the base model's",
    )
    parser.add_argument(
        "--quantization",
        type=one_of(("4bit", "none")),
        metavar="BITS",
        help="4bit: merge into the 4-bit values of the weights, which QLoRA trained on; "
        "none: into the original weights (as the adapter was trained)",
    )
    parser.add_argument(
        "--quant_type",
        type=one_of(("nf4", "fp4")),
        metavar="TYPE",
        help="with 4bit: nf4 or fp4 (as the adapter was trained)",
    )
    parser.add_argument(
        "--use_double_quant",
        action=argparse.BooleanOptionalAction,
        help="with 4bit: whether the scales are quantised too (as the adapter was trained)",
    )
    add_other_base_flag(parser)


def run(args: argparse.Namespace) -> None:
    """Merge, and print the new folder."""
    from llama_recipes_local.api.quick_imports import quick_imports

    with quick_imports():
        import torch

        from llama_recipes_local.commands.merge.command import Merge, merge
        from llama_recipes_local.export_formats import DEFAULT_FORMAT

    merge(
        Merge(
            adapter=args.adapter,
            out=args.out,
            model=args.model,
            tokenizer=args.tokenizer_name,
            dtype=getattr(torch, args.dtype) if args.dtype else None,
            format=args.format or DEFAULT_FORMAT,
            quantization=args.quantization,
            quant_type=args.quant_type,
            use_double_quant=args.use_double_quant,
            allow_other_base=args.allow_other_base,
        )
    )

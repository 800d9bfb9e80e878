"""Measure a model on a data set's validation part, or compare two results."""

import argparse

from llama_recipes_local.cli.parsing import integer, path, text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own flags."""
    parser.add_argument(
        "--adapter",
        type=path,
        metavar="DIR",
        help="folder of a saved adapter, whose run names model and data; without it --model_name "
        "is a full model",
    )
    parser.add_argument(
        "--metrics",
        type=text,
        metavar="NAMES",
        help="comma-separated: loss, perplexity, gleu (grammar), rouge (summaries) (loss, "
        "perplexity and the data set's own)",
    )
    parser.add_argument(
        "--out",
        type=text,
        metavar="FILE",
        help="the JSON file to write (evaluation.json, or evaluation-2.json and so on)",
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        type=path,
        metavar=("A.json", "B.json"),
        help="compare two such files instead",
    )
    for name, default, help in (
        ("batch_size", 8, "prompts that are completed at a time"),
        ("max_new_tokens", 100, "tokens of an answer at most"),
        ("max_examples", 0, "prompts at most; 0 means all"),
    ):
        parser.add_argument(
            f"--{name}", type=integer, default=default, metavar="N", help=f"{help} (%(default)s)"
        )


def run(args: argparse.Namespace) -> None:
    """Measure, or compare."""
    from llama_recipes_local.commands.evaluate.command import evaluate

    given = vars(args).items()
    own = {name: value for name, value in given if name not in ("arguments", "flags")}
    evaluate(*args.arguments, **own, **args.flags)

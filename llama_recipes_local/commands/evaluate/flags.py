"""Measure a model on a data set's validation part, or compare two results."""

import argparse
from collections.abc import Iterable

from llama_recipes_local.cli.parsing import integer, number, one_of, path, text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own flags."""
    parser.add_argument(
        "--adapter",
        type=path,
        metavar="DIR",
        help="folder of a saved adapter, whose run names model and data; without it --model_name "
        "is a full model, a folder or a GGUF file",
    )
    parser.add_argument(
        "--metrics",
        type=text,
        metavar="NAMES",
        help="comma-separated: loss, perplexity, gleu for grammar, rouge for summaries (loss, "
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
        ("batch_size", 8, "prompts to complete at a time"),
        ("max_examples", 0, "the most prompts, or with --benchmark per subject; 0 means all"),
    ):
        parser.add_argument(
            f"--{name}", type=integer, default=default, metavar="N", help=f"{help} (%(default)s)"
        )
    parser.add_argument(
        "--max_new_tokens", type=integer, metavar="N", help="the most tokens of an answer (100)"
    )
    _add_benchmark_flags(parser)


def _add_benchmark_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--benchmark",
        type=one_of(_benchmarks),
        metavar="NAME",
        help="measure a benchmark instead: mmlu, ceval, cmmlu or gsm8k from local files, with "
        "lm-eval's prompts and scores; or forgetting: the perplexity on general texts that come "
        "with this package, before and after training",
    )
    parser.add_argument(
        "--benchmark_path",
        type=path,
        metavar="DIR",
        help="folder of its files: a clone from the Hub, or the authors' archive, unpacked",
    )
    parser.add_argument(
        "--num_fewshot",
        type=number(int, -1, 100),
        metavar="N",
        help="examples in each prompt of the benchmark (as lm-eval: 5 for gsm8k, otherwise 0)",
    )
    parser.add_argument("--json", action="store_true", help="print the benchmark's scores as JSON")


def run(args: argparse.Namespace) -> None:
    """Measure, or compare."""
    from llama_recipes_local.api.quick_imports import quick_imports

    with quick_imports():
        from llama_recipes_local.commands.evaluate.command import evaluate

    evaluate(args)


def _benchmarks() -> Iterable[str]:
    from llama_recipes_local.benchmark_tasks.forgetting_texts import FORGETTING
    from llama_recipes_local.benchmark_tasks.tasks import TASKS

    return [*TASKS, FORGETTING]

"""Predict what a run will take, which settings fit and which is the fastest.

This needs no GPU and no weights. --model_name is a folder with a config.json, or a name such as
llama-2-7b. Settings that flags of finetuning.py name are kept; sharding, activation policy and
micro-batch are chosen where no flag names them.
"""

import argparse
import math

from llama_recipes_local.cli.parsing import number, text
from llama_recipes_local.commands.plan.own_values import reported
from llama_recipes_local.planning.cards import NODES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own flags."""
    parser.add_argument(
        "--gpus",
        type=reported(number(int, 0, 10**5), 1),
        default=1,
        metavar="N",
        help="GPUs of each node (%(default)s)",
    )
    parser.add_argument(
        "--nodes",
        type=reported(number(int, 0, 10**5), 1),
        default=1,
        metavar="N",
        help="machines that train together (%(default)s)",
    )
    parser.add_argument(
        "--gpu_memory",
        type=reported(number(float, 0, 10**4)),
        metavar="GB",
        help="memory of a GPU as it is sold (that of --gpu, or 80)",
    )
    parser.add_argument(
        "--gpu",
        type=reported(text),
        metavar="NAME",
        help="the GPU's name, for its speed, such as H100, A100 or 4090 (one with that memory)",
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="measure the speed of this machine's GPU, or of its CPU if it has none, and plan for "
        "it; without --model_name, only print the speed",
    )
    parser.add_argument(
        "--node_link",
        type=reported(number(float, 0, math.inf), NODES),
        default=NODES,
        metavar="GB/S",
        help="bandwidth of a GPU to other nodes (%(default)s)",
    )
    parser.add_argument(
        "--tokens",
        type=reported(number(int, 0, 10**15)),
        metavar="N",
        help="tokens of an epoch, to compute the hours (estimated from some rows of --dataset "
        "where the model's folder has a tokenizer, and from the bytes of its files otherwise)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """Print the plan."""
    from llama_recipes_local.commands.plan.command import plan

    plan(args)

"""Say what a run will take, which settings fit and which is the fastest, without GPU or weights.

--model_name is a folder, of which config.json is read, or a name such as llama-2-7b. What the
flags of finetuning.py name is kept; sharding, activations and micro-batch are chosen for the rest.
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
        help="memory that a GPU is sold with (that of --gpu, or 80)",
    )
    parser.add_argument(
        "--gpu",
        type=reported(text),
        metavar="NAME",
        help="which GPU, for its speed, such as H100, A100 or 4090 (one with that memory)",
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="plan for this machine's GPU, or CPU without one, by its measured speed; without "
        "--model_name, print that",
    )
    parser.add_argument(
        "--node_link",
        type=reported(number(float, 0, math.inf), NODES),
        default=NODES,
        metavar="GB/S",
        help="what a GPU can send to other nodes in a second (%(default)s)",
    )
    parser.add_argument(
        "--tokens",
        type=reported(number(int, 0, 10**15)),
        metavar="N",
        help="tokens of an epoch, for the hours; estimated from the files of --dataset otherwise",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """Print the plan."""
    from llama_recipes_local.commands.plan.command import plan

    plan(args)

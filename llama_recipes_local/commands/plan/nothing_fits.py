"""Suggests what would fit if nothing does; each change is planned before it is suggested."""

import argparse
from collections.abc import Iterator
from typing import Any

from llama_recipes_local.commands.plan.making_plan import QLORA, Plan, make_plan
from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.planning.flags import NAMES, changes, contradicted, without, words
from llama_recipes_local.planning.search import MARGIN, nearest_fitting

SHORTEST = 512
"""Tokens of a row; shorter ones are not suggested."""
GPUS = ((2, 1), (4, 1), (8, 1), *((8, 2**power) for power in range(1, 8)))
"""Of a node, and nodes."""
MEMORIES = (8, 12, 16, 24, 32, 48, 80, 141, 178)


def nothing_fits(made: Plan, flags: dict[str, Any], args: argparse.Namespace) -> list[Problem]:
    """Return the problem that nothing fits, which names what would.

    Args:
        made: the plan.
        flags: of the run.
        args: the command's own.
    """
    least = made.outcomes[0]
    fixes = list(_changes(made, flags, args)) or list(_with_choices(made, flags, args))
    fixes = fixes or [
        "no more GPUs, no shorter rows and no 4-bit weights are enough: plan for a smaller model"
    ]
    why = (
        f"the least that does this work needs {least.needs:.1f} GiB of each GPU, "
        f"of which {MARGIN:.0%} are planned with"
    )
    what = f"nothing fits into {made.target.card.memory:.1f} GiB"
    return [Problem(what, why, "; or ".join(fixes))]


def _changes(made: Plan, flags: dict[str, Any], args: argparse.Namespace) -> Iterator[str]:
    """Yield the changes that are enough, each the smallest of its kind."""
    yield from _named_choices(made, flags, args)
    if made.run.train.val_batch_size > 1 and _fits({**flags, "val_batch_size": 1}, args):
        yield "--val_batch_size 1"
    if made.run.train.eval_generation_rows and _fits({**flags, "eval_generation_rows": 0}, args):
        yield "--eval_generation_rows 0 (no answers at validations)"
    for more in _more_gpus(args):
        if _fits(flags, args, gpus=more[0], nodes=more[1]):
            yield _gpus(*more)
            break
    for memory in (memory for memory in MEMORIES if memory > made.target.card.memory + 4):
        if _fits(flags, args, gpu_memory=memory, gpu=None):
            yield f"GPUs of {memory} GB (--gpu_memory {memory})"
            break
    if made.asked.weights.bits != 4:
        yield from _in_4_bits(flags, args)
    length = made.asked.batch.length // 2
    while length >= SHORTEST:
        if _fits({**flags, "context_length": length}, args):
            yield f"--context_length {length} (longer rows are truncated)"
            break
        length //= 2


def _named_choices(made: Plan, flags: dict[str, Any], args: argparse.Namespace) -> Iterator[str]:
    """Yield other values of sharding, activations and rows that the flags name."""
    found = nearest_fitting(made.asked, made.target.card)
    if found is None:
        return
    change = changes(found.setting, made.asked)
    out = contradicted(made.run, change)
    rest = {flag: value for flag, value in flags.items() if flag.rpartition(".")[2] not in out}
    if _fits({**rest, **change}, args):
        yield " ".join(words(change)) + without(out)


def _with_choices(made: Plan, flags: dict[str, Any], args: argparse.Namespace) -> Iterator[str]:
    """Yield the changes that are enough if the plan chooses what the flags name."""
    chosen = {name for names in NAMES.values() for name in names}
    named = [flag for flag in flags if flag.rpartition(".")[2] in chosen]
    rest = {flag: value for flag, value in flags.items() if flag not in named}
    for each in _changes(made, rest, args) if named else ():
        yield each + without(named)


def _in_4_bits(flags: dict[str, Any], args: argparse.Namespace) -> Iterator[str]:
    """Yield how an adapter on weights in 4 bits fits, on these GPUs or on more."""
    quantised = {**flags, "use_peft": "True", **QLORA}
    qlora = "--use_peft --quantization 4bit --quant_type nf4 --use_double_quant"
    if _fits(quantised, args):
        yield qlora
        return
    for more in _more_gpus(args):
        if _fits(quantised, args, gpus=more[0], nodes=more[1]):
            yield f"{qlora} {_gpus(*more)}"
            return


def _more_gpus(args: argparse.Namespace) -> list[tuple[int, int]]:
    return [each for each in GPUS if each[0] * each[1] > args.gpus * args.nodes]


def _gpus(gpus: int, nodes: int) -> str:
    return f"--gpus {gpus}" + (f" --nodes {nodes}" if nodes > 1 else "")


def _fits(flags: dict[str, Any], args: argparse.Namespace, **own: Any) -> bool:
    """Return whether something fits with other flags, of the run or of the command."""
    try:
        made = make_plan(flags, argparse.Namespace(**{**vars(args), **own}))
    except UsageError:  # the change does not go with what the user named
        return False
    return made.outcomes[0].fits

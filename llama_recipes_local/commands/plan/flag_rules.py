"""What is wrong with the flags of a run that is planned, as far as it can be known without torch.

A run's own checks are those of ``preflight``; a plan should not print a command that they refuse.
"""

from collections.abc import Collection

from llama_recipes_local import configs
from llama_recipes_local.configs.values import check_fields
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import facts
from llama_recipes_local.planning.asked import Asked
from llama_recipes_local.planning.shapes import LINEAR, Shape

_OTHERS = ("lm_head", "embed_tokens")


def check_asked(asked: Asked, shape: Shape, given: Collection[str]) -> list[Problem]:
    """Return what is wrong with a run's flags.

    Args:
        asked: its configurations.
        shape: of the model.
        given: names of the fields that flags set.
    """
    configurations = [each for each in (asked.train, asked.peft) if each is not None]
    found = [problem for each in configurations for problem in check_fields(each, only=given)]
    return [*found, *_without_fsdp(asked, given), *_targets(asked), *_positions(asked, shape)]


def _without_fsdp(asked: Asked, given: Collection[str]) -> list[Problem]:
    """Find flags of several ranks where there is one process."""
    if asked.train.enable_fsdp:
        return []
    return [
        Problem(
            f"--{name} without --enable_fsdp",
            "one GPU trains in one process, which shards nothing",
            f"give --gpus N or --enable_fsdp too, or leave --{name} out",
        )
        for name, known in facts(configs.fsdp_config).items()
        if name in given and known.needs is not None and "enable_fsdp" in known.needs.settings
    ]


def _targets(asked: Asked) -> list[Problem]:
    """Find targets of LoRA that a Llama does not have."""
    targets = getattr(asked.peft, "target_modules", "all-linear")
    if targets == "all-linear":
        return []
    unknown = [name for name in targets if name.rpartition(".")[2] not in (*LINEAR, *_OTHERS)]
    known = ",".join(LINEAR)
    return [
        Problem(f"--target_modules {name}", "a Llama has no such layer", f"use some of {known}")
        for name in unknown
    ]


def _positions(asked: Asked, shape: Shape) -> list[Problem]:
    """Find rows that are longer than the model takes."""
    length = asked.train.context_length
    packed = asked.train.batching_strategy == "packing"
    if not packed or not shape.positions or length <= shape.positions:
        return []
    return [
        Problem(
            f"--context_length {length}",
            f"the model has {shape.positions} positions (max_position_embeddings)",
            f"use --context_length {shape.positions} or less",
        )
    ]

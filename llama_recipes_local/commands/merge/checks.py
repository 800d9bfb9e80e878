"""Whether the base model has what the merged model is made of, asked before a weight is read."""

from llama_recipes_local.commands.merge.base_tensors import BaseTensors
from llama_recipes_local.commands.merge.skeleton import Skeleton
from llama_recipes_local.errors import Problem
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders import misshapen


def check_base(skeleton: Skeleton, base: BaseTensors, tied: bool) -> list[Problem]:
    """Return what the base model lacks, and what is of another shape than its configuration says.

    Args:
        skeleton: the adapted model.
        base: the base model's tensors.
        tied: whether the head is the embedding.
    """
    stand_in = skeleton.embedding if tied else ""
    lacking = [
        name
        for name in skeleton.shapes
        if name not in base and not (name == skeleton.head and stand_in in base)
    ]
    if lacking:
        return [_damaged(f"it lacks {join_names(lacking)}")]
    kept = [name for name in skeleton.shapes if name in base and not skeleton.is_replaced(name)]
    wrong = misshapen({name: base.shape(name) for name in kept}, skeleton.shapes)
    return [_damaged(f"it holds {join_names(wrong)}")] if wrong else []


def _damaged(why: str) -> Problem:
    return Problem(
        "the base model's weights are not those that its config.json speaks of",
        why,
        "copy the model again, or name another: --model DIR",
    )

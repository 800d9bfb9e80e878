"""On 8, 64 and 512 GPUs the choice is faster than what a hand would change of it."""

import itertools
from dataclasses import replace

import memory as memory_table
import predictions
import pytest
import scaling
from marked_tables import DOCS

from llama_recipes_local.planning.asked import setting
from llama_recipes_local.planning.cards import card
from llama_recipes_local.planning.search import ALIKE, outcome
from llama_recipes_local.planning.setting import (
    FULL,
    FULL_SHARD,
    HYBRID_SHARD,
    KEEP,
    OFFLOAD,
    REPLICATED,
    SHARD_GRAD_OP,
    Setting,
)
from llama_recipes_local.run.resolution import resolve

H100 = card(80, "H100")


def neighbours(chosen: Setting) -> list[Setting]:
    """Return what is otherwise in one respect, at the same global batch."""
    shardings = (REPLICATED, SHARD_GRAD_OP, FULL_SHARD, HYBRID_SHARD)
    found = [replace(chosen, ranks=replace(chosen.ranks, sharding=each)) for each in shardings]
    found += [replace(chosen, policy=each) for each in (KEEP, FULL, OFFLOAD)]
    for rows in (1, 2):
        steps = chosen.batch.rows * chosen.batch.accumulation // rows
        batch = replace(chosen.batch, rows=rows, accumulation=steps)
        found.append(replace(chosen, batch=batch))
    return [each for each in found if each != chosen]


@pytest.mark.parametrize("gpus", scaling.GPUS)
@pytest.mark.parametrize("method", ["LoRA", "full"])
@pytest.mark.parametrize("name", scaling.SHAPES)
def test_no_neighbour_of_the_choice_is_faster(name: str, method: str, gpus: int) -> None:
    best = scaling.fastest(name, method, gpus)
    others = [outcome(each, H100) for each in neighbours(best.setting)]
    assert len(others) >= 6
    fitting = [each for each in others if each.fits]
    if best.fits:
        assert all(each.tokens <= best.tokens * (1 + 2 * ALIKE) for each in fitting)
    else:
        assert fitting == []
        assert all(each.needs >= best.needs for each in others)


def test_kernels_of_the_tables_are_those_of_a_run() -> None:
    for name, method in itertools.product(scaling.SHAPES, ("LoRA", "full")):
        flags = {"use_fast_kernels": "True", "use_peft": str(method == "LoRA")}
        asked = setting(resolve(flags), scaling.SHAPES[name])
        assert scaling.fastest(name, method, 8).setting.kernels == asked.kernels
        assert memory_table.run(name, method, 4096, 80).setting.kernels == asked.kernels


@pytest.mark.parametrize("page", scaling.HEADS)
def test_the_pages_have_the_tables_that_are_made(page: str) -> None:
    text = (DOCS / page).read_text("utf-8")
    assert scaling.table(page) in text
    assert predictions.table(page) in text

"""A flag that has no effect without another one is refused without it: every pair of the fields."""

from typing import Any

import pytest

from llama_recipes_local.fields import facts
from llama_recipes_local.preflight.checks import CHECKS, find_problems
from llama_recipes_local.preflight.flags import DOTTED_ONLY, check_needs, configurations
from llama_recipes_local.run.resolution import resolve

PAIRS = {
    (name if name not in DOTTED_ONLY else f"{owner}.{name}"): known.needs
    for owner, cls in configurations().items()
    for name, known in facts(cls).items()
    if known.needs is not None
}
VALUES: dict[str, Any] = {
    "from_peft_checkpoint": "saved",
    "sharding_strategy": "NO_SHARD",
    "checkpoint_type": "FULL_STATE_DICT",
    "resume_despite": "data",
    "tags": "a,b",
    "profiler_dir": "folder",
}
ON = {
    "save_steps": 5,
    "early_stopping_patience": 3,
    "resume_from_checkpoint": "auto",
    "batching_strategy": "padding",
    "from_peft_checkpoint": "saved",
    "report_to": "tensorboard,wandb",
}


def test_there_are_pairs() -> None:
    assert len(PAIRS) == 28
    assert {"gradient_clipping_threshold", "hsdp", "wandb_config.id", "async_save"} <= PAIRS.keys()


@pytest.mark.parametrize("flag", PAIRS)
def test_a_flag_is_refused_without_what_it_needs_and_taken_with_any_of_it(flag: str) -> None:
    needs, given = PAIRS[flag], {flag: VALUES.get(flag, 1)}
    (problem,) = check_needs(resolve(given))
    assert problem in find_problems(resolve(given), CHECKS)
    assert problem.what.startswith(f"--{flag} without --{needs.settings[0].partition('=')[0]}")
    assert problem.fix.endswith(f"or leave --{flag} out")
    for setting in needs.settings:
        name, _, value = setting.partition("=")
        assert f"--{f'{name} {value}'.strip()}" in problem.fix
        found = check_needs(resolve(given | {name: ON.get(name, True)}))
        assert problem not in found
    dotted = {f"{owner}.{flag.rpartition('.')[2]}": given[flag] for owner in owners(flag)}
    assert [each.what.partition(" ")[0] for each in check_needs(resolve(dotted))] == [
        f"--{each}" for each in dotted
    ]


def owners(flag: str) -> list[str]:
    name = flag.rpartition(".")[2]
    return [
        owner
        for owner, cls in configurations().items()
        if name in facts(cls) and facts(cls)[name].needs is not None
    ]


def test_a_list_that_has_another_value_is_not_enough() -> None:
    (problem,) = check_needs(resolve({"project": "p", "report_to": "tensorboard"}))
    assert problem.what == "--project without --use_wandb or --report_to wandb"


def test_what_is_switched_off_needs_nothing() -> None:
    assert not check_needs(resolve({"hsdp": False, "async_save": "False", "save_total_limit": 0}))

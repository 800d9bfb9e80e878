"""Every field of every configuration says what the rest of the package needs to know of it."""

import typing
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from llama_recipes_local import configs
from llama_recipes_local.adapters.registry import config_classes
from llama_recipes_local.checkpoints.identity import KINDS
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.fields import (
    ABOVE_0,
    EVALUATION,
    FOLDER,
    SELECTS_PARAMETERS,
    TEXT,
    Choices,
    Facts,
    Resume,
    facts,
    fields_with,
)

# of an adapter's configuration every field is part of the method
BY_FIELD = (
    configs.train_config,
    configs.fsdp_config,
    configs.quantization_config,
    configs.wandb_config,
    *(dataset.config for dataset in DATASETS.values()),
)
ALL = (*BY_FIELD, *config_classes().values())


def undeclared(cls: type) -> list[str]:
    """Return what the fields of a configuration do not say."""
    found = []
    hints = typing.get_type_hints(cls)
    for name, known in facts(cls).items():
        kinds = set(typing.get_args(hints[name]) or [hints[name]])
        if issubclass(cls, BY_FIELD) and known.resume is None:
            found.append(f"{name}: whether a resumed run may change it")
        if {int, float} & kinds and known.range is None:
            found.append(f"{name}: its range")
        if str in kinds and not known.choices and not {FOLDER, TEXT} & known.marks:
            found.append(f"{name}: whether it is a folder, one of some choices, or any text")
    return found


@pytest.mark.parametrize("cls", ALL)
def test_every_field_is_declared(cls: type) -> None:
    assert undeclared(cls) == []


def test_a_field_that_says_nothing_is_found() -> None:
    @dataclass
    class planted(configs.train_config):
        cache_dir: str = ""
        most_steps: Annotated[int, Resume.FREE] = 0
        names: Annotated[list[str], TEXT] = None  # type: ignore[assignment]
        good: Annotated[float, ABOVE_0, Resume.SCHEDULE] = 1.0

    assert undeclared(planted) == [
        "cache_dir: whether a resumed run may change it",
        "cache_dir: whether it is a folder, one of some choices, or any text",
        "most_steps: its range",
        "names: whether a resumed run may change it",
    ]


@pytest.mark.parametrize("cls", ALL)
def test_a_default_is_one_that_the_field_takes(cls: type) -> None:
    default = cls()
    for name, known in facts(cls).items():
        value = getattr(default, name)
        if known.range and (not known.range.switch or getattr(default, known.range.switch)):
            assert known.range.holds(value), name
        if known.choices:
            values = value if isinstance(value, list) else [value]
            lower = [each.lower() if known.choices.any_case else each for each in values]
            assert set(lower) <= set(known.choices.values), name


@pytest.mark.parametrize("cls", ALL)
def test_a_range_depends_on_a_switch_of_the_same_configuration(cls: type) -> None:
    hints = typing.get_type_hints(cls)
    for known in facts(cls).values():
        if known.range and known.range.switch:
            assert hints[known.range.switch] is bool


def test_facts_are_read_from_a_field() -> None:
    @dataclass
    class example:
        plain: int = 0
        folder: Annotated[str, FOLDER, Resume.FREE] = ""
        rate: Annotated[float | None, ABOVE_0.when("plain"), Resume.SCHEDULE, EVALUATION] = None
        name: Annotated[Any, Choices("a", source="checkpoints.identity:KINDS")] = "a"

    known = facts(example())
    assert known["plain"] == Facts()
    assert known["folder"] == Facts(resume=Resume.FREE, marks=frozenset({FOLDER}))
    assert known["rate"].range is not None and known["rate"].range.switch == "plain"
    assert known["name"].choices is not None
    assert known["name"].choices.values == ("a", *KINDS)
    assert fields_with(example, FOLDER) == ["folder"]
    assert fields_with(example, Resume.SCHEDULE) == fields_with(example, EVALUATION) == ["rate"]


def test_the_kinds_that_may_be_named_are_those_of_fields() -> None:
    assert [*KINDS, "free"] == [kind.value for kind in Resume]


def test_the_fields_that_commands_read_from_a_record() -> None:
    assert fields_with(configs.train_config, SELECTS_PARAMETERS) == [
        "freeze_layers",
        "num_freeze_layers",
        "train_only",
        "top_layers",
    ]
    quantization = fields_with(configs.quantization_config, EVALUATION)
    assert quantization == ["quant_type", "use_double_quant"]
    assert {"dataset", "seed", "dtype"} < set(fields_with(configs.train_config, EVALUATION))


def test_paths_are_folders() -> None:
    folders = set(fields_with(configs.train_config, FOLDER))
    named = {
        name
        for name in facts(configs.train_config)
        if name.endswith(("_dir", "_root", "_cache", "_path", "_root_folder", "_checkpoint"))
    }
    named.remove("overwrite_output_dir")  # a switch
    assert folders == {"model_name", "tokenizer_name", "config"} | named

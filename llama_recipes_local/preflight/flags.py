"""Finds unknown flags, and values of the wrong type, outside the choices or out of range."""

import shlex
from collections.abc import Collection, Iterable
from inspect import getattr_static
from typing import Any

from llama_recipes_local import configs
from llama_recipes_local.adapters.registry import config_classes
from llama_recipes_local.configs.other_names import OTHER_NAMES
from llama_recipes_local.configs.values import check_fields
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import Problem
from llama_recipes_local.field_values import convert
from llama_recipes_local.fields import FOLDER, defaults, facts, field_names, type_hints
from llama_recipes_local.messages import empty_value, flag_for, nearest, unknown_flag
from llama_recipes_local.program import command
from llama_recipes_local.run import Run
from llama_recipes_local.run.resolution import is_automatic
from llama_recipes_local.storage.names import check_name, check_path, check_possible
from llama_recipes_local.typed_words import Typed

# fields that are flags with their configuration's name only
DOTTED_ONLY = {"id", "resume"}


def configurations() -> dict[str, type]:
    """Return the classes of all configurations that flags reach, by name."""
    classes: tuple[type, ...] = (
        configs.train_config,
        configs.fsdp_config,
        configs.quantization_config,
        configs.wandb_config,
        *config_classes().values(),
        *(dataset.config for dataset in DATASETS.values()),
    )
    return {cls.__name__: cls for cls in classes}


def known_flags() -> list[str]:
    """Return every flag: each field's name, and the same after its configuration's name."""
    classes = configurations()
    names = [name for cls in classes.values() for name in field_names(cls)]
    plain = [name for name in names if name not in DOTTED_ONLY]
    dotted = [f"{owner}.{name}" for owner, cls in classes.items() for name in field_names(cls)]
    return list(dict.fromkeys(plain + dotted))


def check_arguments(arguments: Iterable[object], others: Iterable[str] = ()) -> list[Problem]:
    """Return a problem for each word that does not belong to a flag.

    Args:
        arguments: the words.
        others: the flags that the command has of its own.
    """
    known = {*others, *known_flags()}
    return [
        Problem(
            f"{argument!r} stands on the command line without a flag",
            "every setting has a flag, and a flag takes one value",
            f"{_with_flag(str(argument), known)}; a value with spaces goes in quotes",
        )
        for argument in arguments
    ]


def _with_flag(word: str, known: Collection[str]) -> str:
    flag = flag_for(word)
    return f"write --{flag} {shlex.quote(word)}" if flag in known else "write --flag value"


def check_values(run: Run, only: Collection[str] | None = None) -> list[Problem]:
    """Compare each value with those that its field accepts; see ``fields``.

    Args:
        run: the run.
        only: names of the fields to compare; None compares all.
    """
    problems = []
    for config in run.configurations():
        owner = f"{type(config).__name__}." if type(config).__name__ in DATASETS else ""
        problems += check_fields(config, owner, only)
    return problems


def check_needs(run: Run) -> list[Problem]:
    """Find flags that have no effect without another flag; see ``fields.Needs``."""
    problems = []
    for config in run.configurations():
        for name, known in facts(config).items():
            named = run.flags.keys() | run.automatic
            flag = next((each for each in _flags_of(config, name) if each in named), "")
            if known.needs is None or not flag or not vars(config)[name]:
                continue
            if not any(_is_set(run, setting) for setting in known.needs.settings):
                others = " or ".join(f"--{each.replace('=', ' ')}" for each in known.needs.settings)
                fix = f"give {others} too, or leave --{flag} out"
                problems.append(Problem(f"--{flag} without {others}", known.needs.why, fix))
    return problems


def _flags_of(config: object, name: str) -> list[str]:
    """Return the flags that reach a field."""
    dotted = f"{type(config).__name__}.{name}"
    return [dotted] if name in DOTTED_ONLY else [name, dotted]


def _is_set(run: Run, setting: str) -> bool:
    """Return whether a field is on, or has a value, as ``fields.Needs`` writes it."""
    name, _, wanted = setting.partition("=")
    owner = next(config for config in run.configurations() if hasattr(config, name))
    value = getattr(owner, name)
    if not wanted:
        return bool(value)
    return wanted in value if isinstance(value, list) else value == wanted


def check_flags(
    given: dict[str, Any], others: Iterable[str] = ()
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the flags that can be used, and what is wrong with the others.

    There is a problem for each unknown flag, and for each value that is empty, not of its field's
    type, an impossible path, or not representable in the record of the run.

    Args:
        given: the flags, by name: their text, or what Python passed.
        others: flags of the command itself, among which the nearest name is looked for too.
    """
    known = known_flags()
    usable, problems = {}, []
    for flag, value in switches(given).items():
        wrong = _mismatch(flag, value) if flag in known else [_unknown(flag, [*others, *known])]
        if not wrong:
            usable[flag] = value
        elif (meant := OTHER_NAMES.get(flag)) in known and not _mismatch(meant, value):
            usable.setdefault(meant, value)  # what depends on it is checked with it
        # check_output checks the whole path of output_dir
        problems += wrong or ([] if flag == "output_dir" else check_name(value, f"--{flag}"))
    return usable, problems


def switches(given: dict[str, Any]) -> dict[str, Any]:
    """Return the flags with ``use_peft`` False for ``--nouse_peft``, as fire does."""
    known = known_flags()
    switches: dict[str, Any] = {}
    for flag, value in given.items():
        switch = flag.removeprefix("no")
        off = value is True and flag not in known and switch != flag and _is_switch(switch)
        switches |= {switch: False} if off else {flag: value}
    return switches


def _is_switch(flag: str) -> bool:
    return any(type_hints(cls)[name] is bool for cls, name in reached_by(flag))


def reached_by(flag: str) -> list[tuple[type, str]]:
    """Return the configurations that a flag reaches, and the name of their field."""
    owner, _, name = flag.rpartition(".")
    return [
        (cls, name)
        for cls in configurations().values()
        if name in field_names(cls) and owner in ("", cls.__name__)
    ]


def _unknown(flag: str, known: list[str]) -> Problem:
    elsewhere = flag if flag in OTHER_NAMES else nearest(flag, [*known, *OTHER_NAMES])
    if elsewhere in OTHER_NAMES:
        fix = f"here it is called --{OTHER_NAMES[elsewhere]}"
        return Problem(f"unknown flag --{flag}", "it is what other scripts call it", fix)
    why = "no configuration has a field of this name"
    return unknown_flag(f"--{flag}", known, why, otherwise=f"see `{command('finetune', '--help')}`")


def _mismatch(flag: str, value: object) -> list[Problem]:
    for cls, name in reached_by(flag):
        default = getattr_static(cls, name, None)  # of a library's type, without its import
        if problems := _empty(flag, value, default, FOLDER in _marks(cls, name)):
            return problems
        if is_automatic(flag, value):
            continue
        try:
            if convert(value, type_hints(cls)[name]) == [] and defaults(cls)[name]:
                return [empty_value(f"--{flag}")]
        except ValueError as error:
            # of a flag that nothing follows the value is True
            what = f"--{flag} has no value" if value is True else f"--{flag} cannot be {value!r}"
            return [
                Problem(
                    what,
                    f"{cls.__name__}.{name}: {error}",
                    f"give --{flag} a value of that type",
                )
            ]
        if FOLDER in _marks(cls, name) and isinstance(value, str):
            check = check_possible if flag == "output_dir" else check_path
            return check(value, f"--{flag}")
    return []


def _marks(cls: type, name: str) -> frozenset[object]:
    return frozenset(facts(cls)[name].marks)


def _empty(flag: str, value: object, default: object, is_path: bool) -> list[Problem]:
    """Return a problem if a flag is given without text, as by ``--flag=$UNSET``.

    So is an empty list, unless it is the default. Python code passes an empty text where that is
    the default.
    """
    if isinstance(value, (list, tuple)) and not value and default:
        return [empty_value(f"--{flag}")]
    if not isinstance(value, str) or value.strip():
        return []
    if not isinstance(value, Typed) and (default == "" or not (is_path or default is None)):
        return []
    return [empty_value(f"--{flag}")]

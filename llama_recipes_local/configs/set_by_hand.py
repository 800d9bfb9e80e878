"""Finds what was set by hand on a configuration or its class, and has no effect.

Scripts and notebooks set fields as attributes, and Python takes any name.
"""

from collections.abc import Iterable, Iterator
from dataclasses import MISSING, is_dataclass
from dataclasses import fields as dataclass_fields
from functools import cache

from llama_recipes_local.configs.other_names import OTHER_NAMES
from llama_recipes_local.errors import Problem, refuse
from llama_recipes_local.fields import LibraryDefault, defaults, field_names
from llama_recipes_local.messages import nearest


def refuse_unused(config: object) -> None:
    """Refuse an attribute that sets no field, on a configuration that a script made.

    One whose name is like no field's, as a note of the script's own, is printed.

    Args:
        config: the configuration; or its class, as upstream's notebook passes one.

    Raises:
        UsageError: with every such attribute.
    """
    if not is_dataclass(config):
        return  # a script's own object
    if isinstance(config, type):
        refuse(_without_field(config, config))
        return
    cls = type(config)
    problems = [
        _on_class(cls, name, value, f"set {name} on the object")
        for name, value in _changed(cls)
        if vars(config)[name] == defaults(cls)[name]
    ]
    refuse(_without_field(cls, config) + _without_field(cls, cls) + problems)


def check_classes(classes: Iterable[type]) -> list[Problem]:
    """Return a problem for each attribute that was set on a class: a run does not read it."""
    problems = []
    for cls in classes:
        problems += _without_field(cls, cls)
        for name, value in _changed(cls):
            flag = f"--{cls.__name__}.{name} {value}"
            problems.append(_on_class(cls, name, value, f"give the run {flag}"))
    return problems


def _on_class(cls: type, name: str, value: object, fix: str) -> Problem:
    why = "objects are made with the field's default, whatever their class has"
    return Problem(f"{cls.__name__}.{name} = {value!r} was set on the class", why, fix)


def _changed(cls: type) -> Iterator[tuple[str, object]]:
    """Yield the fields whose value on the class is not the one that it was declared with."""
    for declared in dataclass_fields(cls):
        value = vars(cls).get(declared.name, MISSING)
        untouched = value is declared.default or isinstance(value, LibraryDefault)
        if value is not MISSING and not untouched:
            yield declared.name, value


def _without_field(cls: type, holder: object) -> list[Problem]:
    """Return the attributes of a configuration or its class that are meant for a field."""
    names = field_names(cls)
    problems = []
    for name, value in vars(holder).items():
        if name in names or name.startswith("_") or callable(value):
            continue
        meant = OTHER_NAMES.get(name, "").split(" ")[0] or nearest(name, names)
        what = f"{cls.__name__}.{name} = {value!r} has no effect"
        if meant in names:
            fix = f"set {cls.__name__}.{meant}, and delete {name}"
            problems.append(Problem(what, f"{cls.__name__} has no field {name}", fix))
        else:
            _print_once(f"--> {what}: {cls.__name__} has no field {name}")
    return problems


@cache
def _print_once(text: str) -> None:
    print(text)

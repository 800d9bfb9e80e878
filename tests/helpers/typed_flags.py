"""Makes ``api/flag_types.py``, the types of the flags of ``finetune``, from the configurations.

``python tests/helpers/typed_flags.py`` writes it.
"""

import itertools
import types
import typing
from pathlib import Path

import llama_recipes_local
from llama_recipes_local.fields import FOLDER, LibraryType, facts, field_names
from llama_recipes_local.preflight.flags import DOTTED_ONLY, configurations

PATHS = ("_path", "_split", "dataset", "file")
FILE = Path(llama_recipes_local.__file__).parent / "api" / "flag_types.py"
HEAD = '''"""The flags of ``finetune`` and their types, for editors and type checkers.

``make flag-types`` writes this file from the configurations.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import torch
    import torch.distributed.fsdp

PathText = str | PathLike[str]
'''


def make_types() -> str:
    """Return the file: a class for each configuration's section, and ``RunFlags``."""
    classes = configurations()
    parts = [HEAD]
    flags: dict[str, str] = {}
    for name, cls in classes.items():
        kinds = {field: _type(cls, field) for field in field_names(cls)}
        parts.append(_class(f"_{name}", f"Flags of ``{name}`` alone.", kinds))
        for field, kind in kinds.items():
            if field not in DOTTED_ONLY:
                flags[field] = _either(flags.get(field), kind)
    flags |= {name: f"_{name}" for name in classes}
    parts.append(_class("RunFlags", "Every flag; one that several have sets all of them.", flags))
    return "\n\n".join(parts)


def _class(name: str, what: str, kinds: dict[str, str]) -> str:
    fields = "\n".join(f"    {field}: {kind}" for field, kind in kinds.items())
    return f'class {name}(TypedDict, total=False):\n    """{what}"""\n\n{fields}\n'


def _type(cls: type, field: str) -> str:
    """Return a field's type as it is written; one that names a file or folder may be a path."""
    kind = typing.get_type_hints(cls)[field]
    path = FOLDER in facts(cls)[field].marks or field.endswith(PATHS)
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    parts = [_part(each, path) for each in (typing.get_args(kind) if union else [kind])]
    return " | ".join(dict.fromkeys(itertools.chain(*parts)))


def _part(kind: object, path: bool) -> list[str]:
    if isinstance(kind, LibraryType):
        return ["str", f"{kind.module}.{kind.name}"]
    if typing.get_origin(kind) is list:
        return ["str", "Sequence[str]"]
    if kind is type(None):
        return ["None"]
    assert isinstance(kind, type)
    return ["PathText" if path and kind is str else kind.__name__]


def _either(one: str | None, other: str) -> str:
    kinds = [*(one or "").split(" | "), *other.split(" | ")]
    return " | ".join(dict.fromkeys(filter(None, kinds)))


if __name__ == "__main__":
    FILE.write_text(make_types(), "utf-8")

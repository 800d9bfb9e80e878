"""One item to bring: a folder, its files, and the commands that fetch it."""

from dataclasses import dataclass, field

METHODS = {"lora": "", "full": "", "qlora": "quantization", "sft": "sft"}
"""By what is trained, the extra that it needs."""


@dataclass(frozen=True)
class File:
    """A file, or a pattern where names or their number are not known.

    Attributes:
        name: its path in the folder.
        bytes: its size; None if it is not known.
        exact: whether it has exactly that size.
        needed: whether nothing works without it.
        note: where the size is from, or what it is for.
    """

    name: str
    bytes: int | None = None
    exact: bool = False
    needed: bool = True
    note: str = ""


@dataclass(frozen=True)
class Brought:
    """A part of what is brought.

    Attributes:
        name: what it is.
        folder: where its files are put.
        files: them.
        bytes: the size of all; 0 if it is not known.
        commands: by who has it, the commands that fetch it, one after another.
        notes: what else is to be known.
        flags: of the run that uses it.
    """

    name: str
    folder: str
    files: list[File]
    bytes: int
    commands: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)

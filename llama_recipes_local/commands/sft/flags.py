"""The flags of ``sft.py``: TRL's own, and those that say where the data is."""

import argparse
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn

from trl import ModelConfig, SFTConfig, TrlParser

from llama_recipes_local import configs
from llama_recipes_local.commands.sft.command_line import RENAMED, Flag
from llama_recipes_local.errors import Problem
from llama_recipes_local.messages import unknown_flag

ADAPTER_DTYPES = ("float32", "bfloat16")
# Settings of local_dataset that say what the data is; the rest of them shape text and labels, which
# TRL does here.
DATA_SETTINGS = ("format", "columns", "validation_path", "validation_fraction")


@dataclass
class LocalArguments:
    """What TRL's script looks up on the Hub, from this machine."""

    dataset_name: str = field(
        default="",
        metadata={
            "help": "The data: a file, a folder or a glob pattern of jsonl, json, csv, tsv or "
            "parquet. A clone of openassistant-guanaco is such a folder."
        },
    )
    data_root: str = field(
        default="", metadata={"help": "The folder that relative data paths start from."}
    )
    data_cache: str = field(
        default="", metadata={"help": "The folder where rows and tokens are kept."}
    )
    adapter_dtype: str = field(
        default="float32",
        metadata={
            "help": "The dtype that adapters are held in. float32 keeps the small updates that "
            "bfloat16 rounds away; TRL by itself takes bfloat16 with quantised weights.",
            "choices": list(ADAPTER_DTYPES),
        },
    )


@dataclass
class TrainingArguments(SFTConfig):
    """TRL's ``SFTConfig`` with two defaults that fit the rest of this package."""

    save_only_model: bool = field(
        default=True,
        metadata={
            "help": "Save checkpoints without the pickles that only --resume_from_checkpoint, "
            "which is refused, would read."
        },
    )
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={"help": "Hide losses that are not finite; they end the run if it is off."},
    )


class Arguments(argparse.Namespace):
    """Every flag's value by its name; those of ``LocalArguments`` and TRL's two classes."""


class BadValueError(ValueError):
    """A value that a flag cannot take."""


CLASSES = (LocalArguments, TrainingArguments, ModelConfig)


class _Parser(TrlParser):
    def error(self, message: str) -> NoReturn:
        raise BadValueError(message)


def make_parser() -> TrlParser:
    """Return the parser of every flag, written in full."""
    parser = _Parser(CLASSES, prog="sft.py", allow_abbrev=False)
    defaults = configs.local_dataset()
    for name in DATA_SETTINGS:
        default = getattr(defaults, name)
        parser.add_argument(
            f"--local_dataset.{name}",
            type=type(default),
            default=default,
            help="see datasets/README.md",
        )
    return parser


def known_names() -> set[str]:
    """Return the flags' names."""
    plain = {field.name for cls in CLASSES for field in fields(cls) if field.init}
    return plain | {f"local_dataset.{name}" for name in DATA_SETTINGS}


def check_flags(flags: Iterable[Flag]) -> tuple[list[Flag], list[Problem]]:
    """Return the known flags whose values are of their kind, and what is wrong with the others."""
    parser, known = make_parser(), known_names()
    good: list[Flag] = []
    problems: list[Problem] = []
    for flag in map(_switched_on, flags):
        if flag.name.removeprefix("no_") not in known and flag.name not in known:
            problems.append(_unknown(flag, known))
            continue
        try:
            parser.parse_args(flag.words)
        except BadValueError as error:
            why = str(error).partition(": ")[2] or str(error)
            fix = f"give --{flag.name} a value of its kind; see `python sft.py --help`"
            problems.append(Problem(f"{flag} cannot be", why, fix))
        else:
            good.append(flag)
    return good, problems


def parse(flags: Iterable[Flag]) -> Arguments:
    """Return every flag's value, given or default; the flags are good ones."""
    return make_parser().parse_args(_words(flags), namespace=Arguments())


def build(flags: Iterable[Flag]) -> tuple[LocalArguments, TrainingArguments, ModelConfig]:
    """Return TRL's configurations; under torchrun this joins the process group.

    Raises:
        ValueError: if flags do not go together.
    """
    parsed: Sequence[Any] = make_parser().parse_args_into_dataclasses(
        _words(flags), look_for_args_file=False
    )
    local, training, model = parsed[:3]
    return local, training, model


def _words(flags: Iterable[Flag]) -> list[str]:
    return [word for flag in flags for word in flag.words]


def _switched_on(flag: Flag) -> Flag:
    """Let a switch whose default is open be given without a value, as every other may."""
    open_switches = {
        name
        for cls in CLASSES
        for name, hint in typing.get_type_hints(cls).items()
        if hint == bool | None
    }
    return flag if flag.values or flag.name not in open_switches else Flag(flag.name, ("true",))


def _unknown(flag: Flag, known: set[str]) -> Problem:
    names = sorted(known | RENAMED.keys())
    why = "TRL's SFT script has none of this name"
    return unknown_flag(f"--{flag.name}", names, why, otherwise="see `python sft.py --help`")

"""The flags of ``sft.py``: TRL's, and those of local data and of the adapter's dtype."""

import argparse
import shlex
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn

from transformers.hf_argparser import string_to_bool
from trl import ModelConfig, SFTConfig, TrlParser

from llama_recipes_local.commands.sft.command_line import RENAMED, Flag
from llama_recipes_local.datasets.local import local_dataset
from llama_recipes_local.errors import Problem
from llama_recipes_local.messages import empty_value, unknown_flag
from llama_recipes_local.program import python
from llama_recipes_local.storage.names import check_possible

ADAPTER_DTYPES = ("float32", "bfloat16")
# The fields of local_dataset that sft.py takes as they are; its paths have names of their own.
DATA_SETTINGS = (
    *("format", "columns", "encoding", "documents"),
    *("validation_path", "validation_fraction"),
    *("template", "labels", "skip_bad_rows"),
)
PATHS = ("model_name_or_path", "dataset_name", "output_dir", "data_root", "data_cache")


@dataclass
class LocalArguments:
    """Flags that TRL's script does not have: local data, and the adapter's dtype."""

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
        default="", metadata={"help": "The folder in which rows and tokens are cached."}
    )
    adapter_dtype: str = field(
        default="float32",
        metadata={
            "help": "The dtype of the adapter's parameters. float32 keeps the small updates that "
            "bfloat16 rounds away; TRL's default is bfloat16 with quantised weights.",
            "choices": list(ADAPTER_DTYPES),
        },
    )


@dataclass
class TrainingArguments(SFTConfig):
    """TRL's ``SFTConfig`` with two other defaults."""

    save_only_model: bool = field(
        default=True,
        metadata={
            "help": "Save checkpoints without the pickles that only --resume_from_checkpoint "
            "would read, which is not supported."
        },
    )
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={"help": "Hide non-finite losses; if off, they stop the run."},
    )


class Arguments(argparse.Namespace):
    """The value of every flag: the fields of ``LocalArguments`` and of TRL's two classes."""


class BadValueError(ValueError):
    """A value that a flag cannot take."""


CLASSES = (LocalArguments, TrainingArguments, ModelConfig)


class _Parser(TrlParser):
    def error(self, message: str) -> NoReturn:
        raise BadValueError(message)


def make_parser() -> TrlParser:
    """Return the parser of all flags; it takes no abbreviations."""
    parser = _Parser(CLASSES, prog="sft.py", allow_abbrev=False)
    defaults = local_dataset()
    for name in DATA_SETTINGS:
        default = getattr(defaults, name)
        switch = isinstance(default, bool)
        parser.add_argument(
            f"--local_dataset.{name}",
            type=string_to_bool if switch else type(default),
            default=default,
            help="see datasets/README.md",
            **({"nargs": "?", "const": True} if switch else {}),
        )
    return parser


def known_names() -> set[str]:
    """Return the names of all flags."""
    plain = {field.name for cls in CLASSES for field in fields(cls) if field.init}
    return plain | {f"local_dataset.{name}" for name in DATA_SETTINGS}


def check_flags(flags: Iterable[Flag]) -> tuple[list[Flag], list[Problem]]:
    """Return the known flags whose values have the right type, and the problems of the others."""
    parser, known = make_parser(), known_names()
    valid: list[Flag] = []
    problems: list[Problem] = []
    for flag in map(_with_value, flags):
        if flag.name.removeprefix("no_") not in known and flag.name not in known:
            problems.append(_unknown(flag, known))
            continue
        if any(not value.strip() for value in flag.values):
            problems.append(empty_value(f"--{flag.name}"))
            continue
        paths = flag.values[:1] if flag.name in PATHS else ()
        too_long = [found for path in paths for found in check_possible(path, f"--{flag.name}")]
        if too_long:
            problems += too_long
            continue
        try:
            parser.parse_args(flag.words)
        except BadValueError as error:
            why = str(error).partition(": ")[2] or str(error)
            fix = f"give --{flag.name} a value of its type; see `{_help()}`"
            problems.append(Problem(f"{flag} is not valid", why, fix))
        else:
            valid.append(flag)
    return valid, problems


def parse(flags: Iterable[Flag]) -> Arguments:
    """Return the value of every flag, given or default; ``flags`` have passed ``check_flags``."""
    return make_parser().parse_args(_words(flags), namespace=Arguments())


def build(flags: Iterable[Flag]) -> tuple[LocalArguments, TrainingArguments, ModelConfig]:
    """Return TRL's configurations; under torchrun this joins the process group.

    Raises:
        ValueError: if TRL or transformers refuses the combination.
    """
    parsed: Sequence[Any] = make_parser().parse_args_into_dataclasses(
        _words(flags), look_for_args_file=False
    )
    local, training, model = parsed[:3]
    return local, training, model


def _words(flags: Iterable[Flag]) -> list[str]:
    return [word for flag in flags for word in flag.words]


def _with_value(flag: Flag) -> Flag:
    """Give ``true`` to a flag of type ``bool | None`` without a value, as other switches take."""
    optional_switches = {
        name
        for cls in CLASSES
        for name, hint in typing.get_type_hints(cls).items()
        if hint == bool | None
    }
    return flag if flag.values or flag.name not in optional_switches else Flag(flag.name, ("true",))


def _unknown(flag: Flag, known: set[str]) -> Problem:
    names = sorted(known | RENAMED.keys())
    why = "TRL's SFT script has no flag of this name"
    return unknown_flag(f"--{flag.name}", names, why, otherwise=f"see `{_help()}`")


def _help() -> str:
    return f"{shlex.quote(python())} sft.py --help"

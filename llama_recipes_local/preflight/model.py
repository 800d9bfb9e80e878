"""Whether the model's folder can be loaded, judged by its files without reading a weight."""

import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llama_recipes_local import configs
from llama_recipes_local.checkpoints.layout import check_converted
from llama_recipes_local.errors import Problem
from llama_recipes_local.extras import install
from llama_recipes_local.messages import describe_folder
from llama_recipes_local.model_folders import (
    TOKENIZERS,
    check_adapter_files,
    check_architecture,
    check_weights,
    has_tokenizer,
    read_config,
)
from llama_recipes_local.model_folders.architectures import KNOWN
from llama_recipes_local.model_folders.model_config import check_generation_config
from llama_recipes_local.model_folders.weight_files import (
    check_pointer,
    in_meta_layout,
    meta_layout,
)
from llama_recipes_local.models import AutoTokenizer
from llama_recipes_local.models.folder_checks import check_stored_model
from llama_recipes_local.run import Run

# files that transformers reads to load a tokenizer, if they exist
TOKENIZER_JSON = ("tokenizer.json", "tokenizer_config.json", "config.json")
DOWNLOAD = (
    "on a machine with access run `hf download {name} --local-dir DIR`, copy DIR here, "
    "and name it: --model_name DIR"
)


def check_model(run: Run) -> list[Problem]:
    """Return what is wrong with the model's and the tokenizer's folder."""
    train = run.train
    if not train.model_name:
        return [_unnamed("fine-tuning starts from a model's folder")]
    folder = Path(train.model_name).resolve()
    if other := check_model_type(run):
        return other
    if not folder.is_dir():
        return [_no_folder(train.model_name, folder)]
    if unconverted := check_converted(folder, "--model_name"):
        return unconverted
    if in_meta_layout(folder):
        return [meta_layout(folder)]
    problems = _check_config(folder, train)
    problems += check_weights(folder) if problems else check_stored_model(folder)
    config = any("config.json" in problem.what for problem in problems)
    problems += check_generation_config(folder)
    # a tokenizer is loaded with its folder's config.json, whose problem is reported already
    if not config or run.train.tokenizer_name:
        problems += check_tokenizer(run)
    if train.use_peft and train.from_peft_checkpoint:
        adapter = Path(train.from_peft_checkpoint).expanduser().resolve()
        fix = "name the folder of a saved adapter"
        problems += check_adapter_files(adapter, "--from_peft_checkpoint", fix)
    return problems


def check_model_type(run: Run) -> list[Problem]:
    """Find a model of an architecture, or in a format, that cannot be trained."""
    name = run.train.model_name
    return check_architecture(Path(name).resolve(), "--model_name", tuple(KNOWN)) if name else []


def model_config(run: Run) -> dict[str, Any]:
    """Return the ``config.json`` of a run's model; empty if it cannot be read."""
    return read_config(Path(run.train.model_name).resolve())


def _unnamed(why: str) -> Problem:
    return Problem("no model was named", why, "name one: --model_name /path/to/Llama-2-7b-hf")


def _no_folder(name: str, folder: Path) -> Problem:
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        return Problem(
            f"--model_name {name}: there is no folder {folder}",
            "if it is a name on the Hugging Face Hub: models are loaded from local folders only",
            DOWNLOAD.format(name=name),
        )
    return Problem(
        f"--model_name {name}: there is no folder {folder}",
        describe_folder(folder.parent),
        "name the folder that holds config.json: --model_name DIR",
    )


def _check_config(folder: Path, train: configs.train_config) -> list[Problem]:
    path = folder / "config.json"
    if not path.is_file():
        return [
            Problem(
                f"{folder} has no config.json",
                describe_folder(folder),
                "name a model in the Hugging Face layout: --model_name DIR",
            )
        ]
    try:
        config = json.loads(path.read_text("utf-8"))
        longest = config.get("max_position_embeddings")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        return [Problem(_no_object(path), str(error), "copy the model again")]
    # padded rows have the length of the data
    packing = train.batching_strategy == "packing"
    if packing and isinstance(longest, int) and longest and train.context_length > longest:
        return [longer_than_model("context_length", train.context_length, longest)]
    return []


def longer_than_model(flag: str, length: int, positions: int) -> Problem:
    """Return the problem that a flag asks for rows of more tokens than a model has positions."""
    return Problem(
        f"--{flag} {length}",
        f"the model has {positions} positions (max_position_embeddings)",
        f"use --{flag} {positions} or less",
    )


def check_tokenizer(run: Run) -> list[Problem]:
    """Return what is wrong with the folder that the tokenizer is loaded from."""
    name = run.train.tokenizer_name or run.train.model_name
    if not name:
        return [_unnamed("the tokenizer is in a model's folder")]
    if not run.train.tokenizer_name and (other := check_model_type(run)):
        return other  # its configuration need not be one that a tokenizer is loaded with
    folder = Path(name).resolve()
    if not folder.is_dir() and not run.train.tokenizer_name:
        return [_no_folder(name, folder)]
    if not has_tokenizer(folder):
        return [
            Problem(
                f"{folder} has no tokenizer",
                f"{' or '.join(TOKENIZERS)} is needed; {describe_folder(folder)}",
                "copy the model's tokenizer files there, or name another: --tokenizer_name DIR",
            )
        ]
    pointers = [each for name in TOKENIZERS for each in check_pointer(folder / name)]
    if pointers:
        return pointers
    invalid = [name for name in TOKENIZER_JSON if not _is_json(folder / name)]
    if invalid:
        why = "it is read with the tokenizer"
        return [Problem(_no_object(folder / invalid[0]), why, "copy its files again")]
    return _missing_packages(folder) or _unloadable(folder, _versions(folder))


def _missing_packages(folder: Path) -> list[Problem]:
    if (folder / "tokenizer.json").is_file():
        return []
    missing = [
        package
        for package, module in (("sentencepiece", "sentencepiece"), ("protobuf", "google.protobuf"))
        if not _importable(module)
    ]
    if not missing:
        return []
    return [
        Problem(
            f"{folder} has a tokenizer.model only",
            f"reading it needs {' and '.join(missing)}",
            install(*missing),
        )
    ]


def _versions(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return the name, size and time of each file that a tokenizer may be loaded from."""
    stats = [(path.name, path.stat()) for path in sorted(folder.glob("*.[jm]*")) if path.is_file()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


@cache
def _unloadable(folder: Path, versions: tuple[tuple[str, int, int], ...]) -> list[Problem]:
    """Return a problem if a tokenizer cannot be loaded; several checks of a run ask.

    Args:
        folder: the tokenizer's.
        versions: see ``_versions``; they make it another question once a file has changed.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        len(tokenizer)
        for name, value in (
            ("model_max_length", tokenizer.model_max_length),
            ("chat_template", tokenizer.chat_template),
        ):
            wanted = (int, float) if name == "model_max_length" else (str, dict, type(None))
            if not isinstance(value, wanted):
                raise ValueError(f"{name} is {value!r}")
        tokenizer("a", add_special_tokens=True)
    except Exception as error:  # transformers raises a different error for each field
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        if "trust_remote_code" in str(error):
            why = "it needs Python code of its own, which is never run"
        fix = "copy its files again, or name another: --tokenizer_name DIR"
        return [Problem(f"the tokenizer in {folder} cannot be loaded", why, fix)]
    return []


def _no_object(path: Path) -> str:
    return f"{path} is not a JSON object"


def _is_json(path: Path) -> bool:
    """Return whether a file is a JSON object, or missing."""
    try:
        return isinstance(json.loads(path.read_text("utf-8")), dict)
    except FileNotFoundError:
        return True
    except (OSError, ValueError, RecursionError):
        return False


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False

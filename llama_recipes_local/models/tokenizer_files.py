"""Tries to load a tokenizer from a folder before anything depends on it."""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llama_recipes_local.errors import Problem, caught, door, refusal
from llama_recipes_local.extras import install
from llama_recipes_local.messages import describe_folder
from llama_recipes_local.model_folders.auxiliary_files import TOKENIZERS, has_tokenizer
from llama_recipes_local.model_folders.weight_files import check_pointer
from llama_recipes_local.models.loading import AutoTokenizer
from llama_recipes_local.models.tokenizer_rules import unlike_its_model

# files that transformers reads to load a tokenizer, if they exist
TOKENIZER_JSON = ("tokenizer.json", "tokenizer_config.json", "config.json")


def check_tokenizer_files(folder: Path) -> list[Problem]:
    """Return why a tokenizer cannot be loaded from a folder."""
    if not has_tokenizer(folder):
        return [
            Problem(
                f"{folder} has no tokenizer",
                f"{' or '.join(TOKENIZERS)} is needed; {describe_folder(folder)}",
                "copy the model's tokenizer files there, or name another: --tokenizer_name DIR",
            )
        ]
    files = (*TOKENIZERS, *TOKENIZER_JSON)
    pointers = [each for name in files for each in check_pointer(folder / name)]
    if pointers:
        return pointers
    invalid = [name for name in TOKENIZER_JSON if _object(folder / name) is None]
    if invalid:
        why = "it is read with the tokenizer"
        return [Problem(f"{folder / invalid[0]} is not a JSON object", why, "copy its files again")]
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
    """Return a problem if a tokenizer cannot be loaded; cached, because several checks ask.

    Args:
        folder: the tokenizer's.
        versions: see ``_versions``; part of the cache's key, so that changed files are read again.
    """
    what = f"the tokenizer in {folder} cannot be loaded"
    fix = "copy its files again, or name another: --tokenizer_name DIR"
    with caught() as problems, door(what, fix):
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
        if lacking := _lacking(folder, tokenizer):
            raise ValueError(f"its vocabulary lacks {lacking}, which tokenizer_config.json names")
        if unlike := unlike_its_model(tokenizer, folder):
            what = f"transformers does not follow the rules of {folder / 'tokenizer.model'}"
            fix = "name a folder with a tokenizer.json that has them: --tokenizer_name DIR"
            raise refusal(what, unlike, fix)
    return problems


def _lacking(folder: Path, tokenizer: Any) -> str:
    """Return in words a begin or end token that is in no vocabulary; "" if there is none.

    transformers would add it with the next free id, for which the model has no row.
    """
    added = {item.get("content") for item in _items(folder / "tokenizer.json", "added_tokens")}
    decoder = _items(folder / "tokenizer_config.json", "added_tokens_decoder")
    added |= {item.get("content") for item in decoder}
    added |= set(_object(folder / "added_tokens.json") or {})
    for role in ("bos_token", "eos_token"):
        token, number = getattr(tokenizer, role), getattr(tokenizer, f"{role}_id")
        if number is not None and number >= tokenizer.vocab_size and token not in added:
            return f"the {role} {token!r}"
    return ""


def _items(path: Path, key: str) -> list[dict[str, Any]]:
    """Return the objects in a list, or the values of an object, in a JSON file."""
    found = (_object(path) or {}).get(key)
    items = found.values() if isinstance(found, dict) else found
    return [each for each in items or [] if isinstance(each, dict)]


def _object(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file: empty if there is no file, None if it is something else."""
    if path.exists() and not path.is_file():  # a pipe would wait for its writer
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False

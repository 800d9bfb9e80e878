"""Whether the model's folder can be loaded, judged by its files without reading a weight."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llama_recipes_local import configs
from llama_recipes_local.checkpoints.layout import check_converted
from llama_recipes_local.errors import Problem
from llama_recipes_local.messages import describe_folder
from llama_recipes_local.model_folders import (
    TOKENIZERS,
    check_adapter_files,
    check_weights,
    has_tokenizer,
    read_config,
)
from llama_recipes_local.run import Run

# files that transformers reads to load a tokenizer, if they exist
TOKENIZER_JSON = ("tokenizer.json", "tokenizer_config.json", "config.json")
MODEL_TYPES = ("llama", "mllama")
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
    if not folder.is_dir():
        return [_no_folder(train.model_name, folder)]
    if unconverted := check_converted(folder, "--model_name"):
        return unconverted
    problems = _check_config(folder, train)
    problems += check_weights(folder)
    known = {problem.what for problem in problems}
    problems += [problem for problem in check_tokenizer(run) if problem.what not in known]
    if train.use_peft and train.from_peft_checkpoint:
        adapter = Path(train.from_peft_checkpoint).expanduser().resolve()
        fix = "name the folder of a saved adapter"
        problems += check_adapter_files(adapter, "--from_peft_checkpoint", fix)
    return problems


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
                "name a model in the Hugging Face layout; Meta's own layout (params.json, .pth) "
                "is converted with transformers' convert_llama_weights_to_hf.py",
            )
        ]
    try:
        config = json.loads(path.read_text("utf-8"))
        kind, longest = config.get("model_type"), config.get("max_position_embeddings")
    except (ValueError, AttributeError) as error:
        return [Problem(_no_object(path), str(error), "copy the model again")]
    if kind not in MODEL_TYPES:
        return [
            Problem(
                f"the model in {folder} is of type {kind}",
                f"the types that can be trained are {', '.join(MODEL_TYPES)}",
                "name a Llama: --model_name DIR",
            )
        ]
    # padded rows have the length of the data
    packing = train.batching_strategy == "packing"
    if packing and longest and train.context_length > longest:
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
    invalid = [name for name in TOKENIZER_JSON if not _is_json(folder / name)]
    if invalid:
        why = "it is read with the tokenizer"
        return [Problem(_no_object(folder / invalid[0]), why, "copy its files again")]
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
            f"pip install {' '.join(missing)}",
        )
    ]


def _no_object(path: Path) -> str:
    return f"{path} is not a JSON object"


def _is_json(path: Path) -> bool:
    """Return whether a file is JSON or missing."""
    try:
        json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False

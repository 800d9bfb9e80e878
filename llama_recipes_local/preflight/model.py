"""Whether the model's folder can be loaded, judged by its files without reading weights."""

import json
import re
from pathlib import Path

from llama_recipes_local.checkpoints.layout import check_converted
from llama_recipes_local.errors import Problem, caught, door
from llama_recipes_local.messages import describe_folder
from llama_recipes_local.model_folders.adapter_files import check_adapter_files
from llama_recipes_local.model_folders.architectures import KNOWN, check_architecture
from llama_recipes_local.model_folders.model_config import check_generation_config
from llama_recipes_local.model_folders.weight_files import (
    check_ordinary,
    check_pointer,
    check_weights,
    in_meta_layout,
    is_without_weights,
    meta_layout,
)
from llama_recipes_local.models.folder_checks import check_stored_model
from llama_recipes_local.models.tokenizer_files import check_tokenizer_files
from llama_recipes_local.run import Run
from llama_recipes_local.storage.publishing import old_of

UNNAMED = "no model was named"
DOWNLOAD = (
    "on a machine with access run `hf download {name} --local-dir DIR`, copy DIR here, "
    "and name it: --model_name DIR"
)


def check_model(run: Run) -> list[Problem]:
    """Return what is wrong with the model's and the tokenizer's folder.

    A rehearsal makes its own weights, so it needs none.
    """
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
    no_weights = train.rehearse and is_without_weights(folder)
    problems = check_model_folder(folder, with_weights=not no_weights)
    config = any("config.json" in problem.what for problem in problems)
    # a tokenizer is loaded with its folder's config.json, whose problem is reported already
    if not config or run.train.tokenizer_name:
        problems += check_tokenizer(run)
    if train.use_peft and train.from_peft_checkpoint:
        adapter = Path(train.from_peft_checkpoint).expanduser().resolve()
        fix = "name the folder of a saved adapter"
        problems += check_adapter_files(adapter, "--from_peft_checkpoint", fix)
    return problems


def check_model_folder(folder: Path, with_weights: bool = True) -> list[Problem]:
    """Return why the model in a folder cannot be loaded; the tokenizer is not checked."""
    problems = _check_config(folder)
    if with_weights:
        problems += check_weights(folder) if problems else check_stored_model(folder)
    return problems + check_generation_config(folder)


def check_model_type(run: Run) -> list[Problem]:
    """Find a model whose architecture or format cannot be trained."""
    name = run.train.model_name
    return check_architecture(Path(name).resolve(), "--model_name", tuple(KNOWN)) if name else []


def _unnamed(why: str) -> Problem:
    return Problem(UNNAMED, why, "name one: --model_name /path/to/Llama-2-7b-hf")


def _no_folder(name: str, folder: Path) -> Problem:
    replaced = old_of(folder).is_dir()
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith(".") and not replaced:
        return Problem(
            f"--model_name {name}: there is no folder {folder}",
            "if it is a name on the Hugging Face Hub: models are loaded from local folders only",
            DOWNLOAD.format(name=name),
        )
    return Problem(
        f"--model_name {name}: there is no folder {folder}",
        describe_folder(folder if replaced else folder.parent),
        "name the folder that holds config.json: --model_name DIR",
    )


def _check_config(folder: Path) -> list[Problem]:
    path = folder / "config.json"
    if wrong := check_ordinary(folder, path.name) or check_pointer(path):
        return wrong
    if not path.is_file():
        return [
            Problem(
                f"{folder} has no config.json",
                describe_folder(folder),
                "name a model in the Hugging Face layout: --model_name DIR",
            )
        ]
    with caught() as problems, door(_no_object(path), "copy the model again"):
        config = json.loads(path.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"it is {config!r:.60}")
    return problems


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
    return check_tokenizer_files(folder)


def _no_object(path: Path) -> str:
    return f"{path} is not a JSON object"

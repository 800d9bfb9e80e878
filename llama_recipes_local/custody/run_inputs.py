"""The files that a run reads: its model, adapter, data and settings."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_recipes_local.configs.protocols import Part
from llama_recipes_local.custody.custody_file import Files
from llama_recipes_local.datasets.base import PARTS, find_split
from llama_recipes_local.datasets.prepared_data import PART_NAMES
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import Problem, caught
from llama_recipes_local.fields import FOLDER, fields_with
from llama_recipes_local.model_folders.auxiliary_files import FURTHER_TEMPLATES
from llama_recipes_local.records.finding import files_below
from llama_recipes_local.run import Run, Source
from llama_recipes_local.run.record import CONFIGURATION_FILE, CUSTODY_FILE
from llama_recipes_local.storage import data_root
from llama_recipes_local.storage.hashing import FileHashes

OF_TOKENIZERS = ("*.json", "*.jinja", "*.model", "merges.txt", FURTHER_TEMPLATES)
OF_MODELS = ("*.safetensors", *OF_TOKENIZERS)
OF_ADAPTERS = ("adapter_model.safetensors", "adapter_config.json", "base_model.json")
PATTERNS = {
    "model_name": OF_MODELS,
    "tokenizer_name": OF_TOKENIZERS,
    "from_peft_checkpoint": OF_ADAPTERS,
    "adapter": OF_ADAPTERS,
    "checkpoint": tuple(
        f"{folder}{pattern}"
        for folder in ("", "model/")  # of a run's checkpoint
        for pattern in (*OF_MODELS, "*.bin", "*.pth", "*.distcp", ".metadata", "train_params.yaml")
    ),
}
"""What is read of a folder, by what it is."""
_OF_TIME = (
    *("metrics", "sample_answers", "evaluat", "trainer_state", "certificate"),
    *(CONFIGURATION_FILE, CUSTODY_FILE, "sft_config.json"),
)
"""How files begin that hold times or places, and no model is read from."""
Places = dict[str, "Place"]


@dataclass(frozen=True)
class Place:
    """Files of a folder, in the order in which they are read."""

    folder: Path
    files: list[Path]


def run_inputs(run: Run) -> tuple[Places, list[Problem]]:
    """Return the files that a run reads, by their purpose, and problems with missing data."""
    train = run.train
    places = {"model_name": folder_place(train.model_name)}
    if train.tokenizer_name:
        places["tokenizer_name"] = folder_place(train.tokenizer_name, OF_TOKENIZERS)
    if train.from_peft_checkpoint:
        places["from_peft_checkpoint"] = folder_place(train.from_peft_checkpoint, OF_ADAPTERS)
    if train.tokens_path:
        folder = absolute(train.tokens_path)
        places["tokens_path"] = Place(folder, files_below(folder) if folder.is_dir() else [])
        return places, []
    problems: list[Problem] = []
    for number, source in enumerate(run.sources, 1):
        with caught() as found:
            places |= source_places(source, f" {number}" if run.mixed else "")
        problems += found
    return places, problems


def folder_place(folder: str | Path, patterns: Iterable[str] = OF_MODELS) -> Place:
    """Return the files of a model's folder, or an adapter's, that a run may read."""
    path = absolute(folder)
    found = {each for pattern in patterns for each in path.glob(pattern) if each.is_file()}
    return Place(path, sorted(each for each in found if not each.name.startswith(_OF_TIME)))


def input_place(path: Path, what: str) -> Place:
    """Return the files that a command reads of a folder, or a file by itself.

    Args:
        path: the folder or the file.
        what: what it is, a name in ``PATTERNS``.
    """
    return file_place(path) if path.is_file() else folder_place(path, PATTERNS[what])


def absolute(path: str | Path) -> Path:
    """Return an absolute path without ``..``; links in it are kept."""
    return Path(os.path.abspath(Path(path).expanduser()))


def file_place(path: Path) -> Place:
    """Return a single file."""
    path = absolute(path)
    return Place(path.parent, [path] if path.is_file() else [])


def source_places(source: Source, number: str = "", parts: Sequence[Part] = PARTS) -> Places:
    """Return the files of a data set; ``number`` is appended to what they are.

    Raises:
        UsageError: if files are missing.
    """
    dataset = DATASETS[source.dataset]
    if dataset.split is None:
        return dict(_own_files(source))
    splits = {part: find_split(dataset, source.config, part) for part in parts}
    return {
        f"{PART_NAMES[part]} data{number}": _together(split.files)
        for part, split in splits.items()
        if split is not None
    }


def _own_files(source: Source) -> Iterator[tuple[str, Place]]:
    """Yield the files below the paths of a data set that other code reads."""
    root = source.config.data_root
    for name in fields_with(source.config, FOLDER):
        value = str(getattr(source.config, name)).partition(".py:")
        word = value[0] + ".py" if value[1] else value[0]
        path = data_root.resolve(word, root) if word and name != "data_root" else None
        if path is not None and path.exists():
            files = files_below(path) if path.is_dir() else [path]
            folder = path if path.is_dir() else path.parent
            yield f"{source.dataset}.{name}", Place(folder, files)


def _together(files: Iterable[Path]) -> Place:
    """Return files with their common parent folder."""
    listed = [absolute(path) for path in files]
    folder = listed[0].parent
    while not all(path.is_relative_to(folder) for path in listed):
        folder = folder.parent
    return Place(folder, listed)


def hashed(places: Mapping[str, Place], memory: Path) -> dict[str, Files]:
    """Return the hashes of files; those in the cache ``memory`` are not read again."""
    hashes = FileHashes(memory)
    return {
        what: Files(
            str(place.folder),
            dict(zip(names(place), hashes.of(place.files), strict=True)),
        )
        for what, place in places.items()
    }


def names(place: Place) -> list[str]:
    """Return the paths of files in their folder."""
    return [each.relative_to(place.folder).as_posix() for each in place.files]

"""A model's weight files: are they there and complete; only headers are read."""

import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from llama_recipes_local.errors import Problem
from llama_recipes_local.messages import describe_folder, join_names
from llama_recipes_local.model_folders.linked_files import check_links
from llama_recipes_local.program import command
from llama_recipes_local.storage.names import check_name
from llama_recipes_local.storage.weight_names import INDEX as INDEX
from llama_recipes_local.storage.weight_names import SINGLE as SINGLE

PICKLED = "pytorch_model*.bin"
META = "consolidated.*.pth"
PARAMS = "params.json"
_GIT_LFS = b"version https://git-lfs"
_COPY_AGAIN = "copy the model again"
# what programs that fetch a file leave beside it until it is whole; aria2's has its size already
UNFINISHED = (".aria2", ".st", ".part", ".crdownload", ".incomplete", ".partial")


def has_weights(folder: Path) -> bool:
    """Return whether a folder has weight files; see ``check_weights``."""
    return (folder / SINGLE).is_file() or (folder / INDEX).is_file()


def is_without_weights(folder: Path) -> bool:
    """Return whether a folder has no file that may hold weights, in any format."""
    return not any(next(folder.glob(f"*.{each}*"), None) for each in ("safetensors", "bin", "pt"))


def check_weights(folder: Path) -> list[Problem]:
    """Return the problems that keep a folder's weights from being read."""
    if unfinished := _check_finished(folder) or check_ordinary(folder, "*.safetensors"):
        return unfinished
    if (folder / SINGLE).is_file():
        problems = check_links(folder, [folder / SINGLE]) or check_headers([folder / SINGLE])
        return problems or _check_one_set(folder)
    if (folder / INDEX).is_file():
        return _check_shards(folder)
    return [_unreadable_layout(folder)]


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of a folder that ``check_weights`` finds nothing wrong with."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    return [folder / name for name in sorted(set(_weight_map(folder / INDEX).values()))]


def _check_finished(folder: Path) -> list[Problem]:
    """Find weight files that are being fetched, or were until that was interrupted."""
    left = [path.name for end in UNFINISHED for path in folder.glob(f"*.safetensors{end}")]
    if not left:
        return []
    what = f"the weights in {folder} are not there in whole"
    why = f"{join_names(sorted(left))} is of a download that did not end"
    return [Problem(what, why, "go on with the download, or copy the weights again and remove it")]


def check_ordinary(folder: Path, pattern: str) -> list[Problem]:
    """Return a problem for each name that is there, and is not a file or a link to one."""
    return [
        Problem(f"{path} is not a file", _kind(path), "copy the file again, in its place")
        for path in sorted(folder.glob(pattern))
        if not path.is_file()
    ]


def _kind(path: Path) -> str:
    """Say what something is that is not a file."""
    if path.is_symlink() and not os.path.exists(path):
        return f"it is a link to {os.readlink(path)}, which is not there"
    return "it is a folder" if path.is_dir() else "it is a pipe or a device"


def _check_one_set(folder: Path) -> list[Problem]:
    """Find an index whose shards are beside the single file: which of the two is the model?"""
    try:
        shards = sorted(set(_weight_map(folder / INDEX).values()) - {SINGLE})
    except ValueError:  # there is none
        return []
    if not shards or not all((folder / shard).is_file() for shard in shards):
        return []
    why = f"{SINGLE}, and {INDEX} with {join_names(shards)}; only one can be the model's"
    return [Problem(f"{folder} holds two sets of weights", why, "move the other one away")]


def in_meta_layout(folder: Path) -> bool:
    """Return whether a folder has Meta's own files, and no ``config.json``."""
    if (folder / "config.json").is_file():
        return False
    return (folder / PARAMS).is_file() or any(folder.glob(META))


def meta_layout(folder: Path) -> Problem:
    """Return the problem that a folder is in Meta's own layout."""
    why = f"it holds {join_names(sorted(path.name for path in folder.glob(META)))}"
    if not any(folder.glob(META)):
        why = f"it holds {PARAMS} and no {META}, which hold the weights; copy them there first"
    return Problem(f"{folder} is in Meta's own layout", why, conversion(folder))


def conversion(folder: Path) -> str:
    """Return the fix that ``convert`` makes a model folder of ``folder``, without running code."""
    made = command("convert", folder, "--out", "DIR")
    return f"{made} makes a model folder of it, which is named instead"


def _unreadable_layout(folder: Path) -> Problem:
    """Return the problem with a folder that has neither one weight file nor an index of shards."""
    what = f"{folder} has no weights in safetensors"
    if pickled := sorted(path.name for path in folder.glob(PICKLED)):
        why = f"only {pickled[0]} was found, a pickle, which could run code when it is loaded"
        return Problem(what, why, conversion(folder))
    if any(folder.glob(META)):
        return meta_layout(folder)
    if shards := sorted(path.name for path in folder.glob("model-*.safetensors")):
        return _no_index(folder, shards)
    fix = f"hf download NAME --include '*.safetensors*' --local-dir {shlex.quote(str(folder))}, "
    fix += "where the Hub is within reach, or copy the model's *.safetensors files there"
    return Problem(what, describe_folder(folder), fix)


def _no_index(folder: Path, shards: list[str]) -> Problem:
    """Return the problem with shards that no index names."""
    numbered = [re.fullmatch(r"model-(\d+)-of-(\d+)\.safetensors", name) for name in shards]
    found = {match[1] for match in numbered if match}
    total = max((match[2] for match in numbered if match), default="0")
    width = len(total)
    missing = [f"{n:0{width}}" for n in range(1, min(int(total), 1000) + 1)]
    missing = [f"model-{n}-of-{total}.safetensors" for n in missing if n not in found]
    why = f"it holds {join_names(shards)}, and the index says which tensor is in which file"
    if missing:
        fix = f"copy {join_names([INDEX, *missing])} there too"
        return Problem(f"{folder} has no {INDEX}", why, fix)
    return Problem(f"{folder} has no {INDEX}", why, f"copy it there, or {conversion(folder)}")


def _weight_map(index: Path) -> dict[str, str]:
    """Return an index's names of tensors and files.

    Raises:
        ValueError: if it is not an index, or names a file outside its folder.
    """
    try:
        named = json.loads(index.read_text("utf-8"))["weight_map"]
        files = {str(name): str(file) for name, file in named.items()}
    except Exception as error:  # of another kind for each thing that JSON may be
        raise ValueError(repr(error)) from error
    if not files:
        raise ValueError("it names no tensor")
    outside = sorted({file for file in files.values() if Path(file).name != file})
    if outside:
        raise ValueError(f"it names files outside the folder: {join_names(outside)}")
    return files


def missing_shards(folder: Path) -> list[str]:
    """Return the weight files that the index names and the folder lacks; none without an index."""
    try:
        shards = sorted(set(_weight_map(folder / INDEX).values()))
    except ValueError:
        return []
    return [shard for shard in shards if not (folder / shard).is_file()]


def _check_shards(folder: Path) -> list[Problem]:
    index = folder / INDEX
    try:
        named = _weight_map(index)
    except ValueError as error:
        if pointer := check_pointer(index):
            return pointer
        return [Problem(f"{index} is not an index of weights", str(error), _COPY_AGAIN)]
    shards = sorted(set(named.values()))
    if not (missing := missing_shards(folder)):
        files = [folder / shard for shard in shards]
        there = {path.name for path in folder.glob("model-*-of-*.safetensors")}
        if unnamed := there.difference(shards):
            why = f"{join_names(sorted(unnamed))}; only one set can be the model's"
            what = f"{folder} holds shards that {INDEX} does not name"
            return [Problem(what, why, "move the others away, or copy the index again")]
        return check_links(folder, files) or check_headers(files) or _check_places(folder, named)
    return [
        Problem(
            f"{folder} has only {len(shards) - len(missing)} of {len(shards)} weight files",
            f"missing: {', '.join(missing[:5])}",
            "copy these files into the folder",
        )
    ]


def _check_places(folder: Path, named: Mapping[str, str]) -> list[Problem]:
    """Find tensors that are in two files, or in another file than the index says.

    Args:
        folder: the model's.
        named: the index's names of tensors and files, which are all there.
    """
    found: dict[str, str] = {}
    for path in sorted({folder / file for file in named.values()}):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                other = found.setdefault(name, path.name)
                if other != path.name:
                    what = f"{folder} has a tensor in two of its weight files"
                    return [Problem(what, f"{name} is in {other} and {path.name}", _COPY_AGAIN)]
    moved = [name for name, file in named.items() if found.get(name, file) != file]
    if not moved:
        return []
    first = f"{moved[0]} is in {found[moved[0]]}, and the index says {named[moved[0]]}"
    what = f"{folder / INDEX} names another file for {len(moved)} of {len(named)} tensors"
    return [Problem(what, f"is it another model's? {first}", _COPY_AGAIN)]


def check_headers(files: Iterable[Path]) -> list[Problem]:
    """Find files that are truncated, or pointers of Git LFS; only their headers are read."""
    problems = []
    for path in files:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            problems.append(unreadable(path, error))
    return problems


def check_pointer(path: Path) -> list[Problem]:
    """Return a problem if a file is a pointer of Git LFS instead of what it is named for."""
    if not path.is_file():
        return []
    try:
        with path.open("rb") as file:
            start = file.read(len(_GIT_LFS))
    except OSError:
        return []
    if start != _GIT_LFS:
        return []
    folder = shlex.quote(str(path.parent))
    return [
        Problem(
            f"{path} is a pointer of Git LFS, not the file itself",
            "the repository was cloned without Git LFS, which fetches large files",
            f"git -C {folder} lfs pull, where the repository's server is within reach, "
            "or copy the file again",
        )
    ]


def unreadable(path: Path, error: Exception) -> Problem:
    """Return the problem with a weight file that safetensors refuses."""
    if path.is_file() and not os.access(path, os.R_OK):  # safetensors says that there is none
        fix = "have its owner allow it to be read"
        return Problem(f"{path} cannot be read", "permission denied", fix)
    corrupt = Problem(
        f"{path} is not a complete safetensors file", str(error), "copy the file again"
    )
    return next(iter(check_pointer(path) or check_name(path)), corrupt)

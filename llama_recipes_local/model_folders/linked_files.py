"""Restricts links in a model's folder to the folders where its other files are."""

from collections.abc import Iterable
from pathlib import Path

from llama_recipes_local.errors import Problem

# files that are read, and so must be what they should be
_READ = ("config.json", "adapter_config.json", "tokenizer.json", "tokenizer.model")


def homes(folder: Path) -> set[Path]:
    """Return the folders that linked files of a model's folder may be in.

    They are those of the configuration and the tokenizer, whose content is read and checked. In the
    Hub's cache ``snapshots/REVISION`` links to ``blobs``.
    """
    real = folder.resolve()
    read = (path for name in _READ if (path := folder / name).is_file())
    found = {real, *(path.resolve().parent for path in read)}
    return found | ({real.parents[1] / "blobs"} if real.parent.name == "snapshots" else set())


def check_links(folder: Path, files: Iterable[Path]) -> list[Problem]:
    """Return a problem for each file of a model's folder that links elsewhere.

    ``merge`` and ``convert`` copy weights into models that may be published.
    """
    allowed = homes(folder)
    return [
        Problem(
            f"{path} links to {path.resolve()}, outside the model's folder",
            "the weights of a model are where its config.json is",
            "copy the file there, or link all files of the model from one folder",
        )
        for path in files
        if path.is_symlink() and path.resolve().parent not in allowed
    ]

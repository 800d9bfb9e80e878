"""The data root: the folder that relative paths of data start from."""

import os
from pathlib import Path

ENVIRONMENT_VARIABLE = "LLAMA_RECIPES_DATA_ROOT"


def data_root(given: str = "") -> Path:
    """Return the data root, absolute.

    Args:
        given: what ``--data_root`` gives; if empty, it is the environment variable
            ``LLAMA_RECIPES_DATA_ROOT``, or else the working directory.
    """
    root = given or os.environ.get(ENVIRONMENT_VARIABLE) or "."
    return Path(root).expanduser().resolve()


def resolve(path: str | os.PathLike[str], given: str = "") -> Path:
    """Return a data path, absolute; a relative one is below the data root.

    Args:
        path: the path.
        given: as of ``data_root``.
    """
    # Path.resolve raises for links that lead in a circle
    return Path(os.path.realpath(data_root(given) / Path(path).expanduser()))

"""Names of files: their natural order, and those that are not valid UTF-8.

safetensors, JSON and the console accept none that is not.
"""

import os
import re

from llama_recipes_local.errors import Problem, refuse


def natural_key(name: str) -> tuple[str, str]:
    """Return a sort key that puts part 2 before part 10."""
    return re.sub("[0-9]+", lambda number: number[0].zfill(20), name), name


def check_name(path: str | os.PathLike[str], flag: str = "") -> list[Problem]:
    """Return a problem if a path has bytes that are not UTF-8, such as a name in GBK.

    Args:
        path: a path as Python decodes it, with a surrogate for each such byte.
        flag: the flag that names it, if known.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return [
            Problem(
                f"{flag} {path}".strip(),
                "the name has bytes that are not UTF-8, and cannot be written into records",
                "rename it or name another (convmv -f gbk -t utf-8 renames from GBK)",
            )
        ]
    return []


def refuse_name(path: str | os.PathLike[str], flag: str) -> None:
    """Refuse a path that ``check_name`` reports.

    Raises:
        UsageError: if it has bytes that are not UTF-8.
    """
    refuse(check_name(path, flag))

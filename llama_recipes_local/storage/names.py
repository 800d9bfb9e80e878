"""Names of files that are not text: safetensors, JSON and the console take none of them."""

import os

from llama_recipes_local.errors import Problem, refuse


def check_name(path: str | os.PathLike[str], flag: str = "") -> list[Problem]:
    """Return a problem if a path has bytes that are not UTF-8, as a name in GBK has.

    Args:
        path: a path as Python has it, with a surrogate for each such byte.
        flag: the flag that names it, where that is known.
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
    """Refuse such a path.

    Raises:
        UsageError: if it is one.
    """
    refuse(check_name(path, flag))

"""Points upstream's absolute imports of itself at the copy.

The rule: each statement ``from llama_recipes[.MODULE] import ...``, wherever it stands, gets the
copy's package in front of ``llama_recipes``. Strings that hold the name, such as a
project's name or a path, stay; so does every other byte, white space and line endings included.
"""

import ast
import re
import warnings
from collections.abc import Mapping

from llama_recipes_local.vendoring.checkout import PACKAGE
from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.wheel import UPSTREAM_PACKAGE

TARGET_PACKAGE = f"{PACKAGE}._vendor"
EXPECTED_IMPORTS = 46
EXPECTED_FILES = 13

_FROM = re.compile(rb"from[ \t]+(?=%s[. \t])" % UPSTREAM_PACKAGE.encode())


def rewrite_imports(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files with upstream's imports of itself pointing at the copy.

    Raises:
        VendoringError: if the number of imports or of files is not what the locked release has.
    """
    rewritten = dict(files)
    imports, changed = 0, 0
    for path, content in files.items():
        if path.endswith(".py"):
            rewritten[path], count = rewrite_source(content, path)
            imports += count
            changed += count > 0
    if (imports, changed) != (EXPECTED_IMPORTS, EXPECTED_FILES):
        raise VendoringError(
            f"rewrote {imports} imports in {changed} files, but the locked release has "
            f"{EXPECTED_IMPORTS} in {EXPECTED_FILES}; if the lock names another release now, count "
            f"its imports and set both numbers in {PACKAGE}/vendoring/rewrite.py"
        )
    return rewritten


def rewrite_source(source: bytes, path: str) -> tuple[bytes, int]:
    """Return one file's source with its imports rewritten, and how many there were.

    Args:
        source: the file's bytes.
        path: its path, for messages.

    Raises:
        VendoringError: if it imports upstream in a way that the rule does not cover.
    """
    with warnings.catch_warnings():
        # Upstream's strings hold invalid escapes, which newer interpreters warn of.
        warnings.simplefilter("ignore")
        tree = ast.parse(source, filename=path)
    # Only these end a line for the parser; bytes.splitlines knows no others.
    lines = source.splitlines(keepends=True)
    count = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(_is_upstream(item.name) for item in node.names):
            raise VendoringError(
                f"{path}:{node.lineno} says 'import {UPSTREAM_PACKAGE}', which the rewriting does "
                "not cover: it would bind another name"
            )
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _is_upstream(node.module or ""):
            lines[node.lineno - 1] = _rewrite_line(lines[node.lineno - 1], node, path)
            count += 1
    return b"".join(lines), count


def _is_upstream(module: str) -> bool:
    return module.split(".")[0] == UPSTREAM_PACKAGE


def _rewrite_line(line: bytes, node: ast.ImportFrom, path: str) -> bytes:
    # The parser counts columns in bytes of UTF-8.
    match = _FROM.match(line, node.col_offset)
    if match is None:
        raise VendoringError(
            f"{path}:{node.lineno} imports {UPSTREAM_PACKAGE} in a form that the rewriting does "
            f"not cover: {line!r}"
        )
    return line[: match.end()] + TARGET_PACKAGE.encode() + b"." + line[match.end() :]

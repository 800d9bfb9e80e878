"""The rewriting touches upstream's imports of itself, all of them, and no other byte."""

import ast
import io
import re
import tokenize
import warnings

import pytest

from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.lock import Lock
from llama_recipes_local.vendoring.rewrite import TARGET_PACKAGE, rewrite_imports, rewrite_source
from llama_recipes_local.vendoring.wheel import read_wheel

NEW = b"llama_recipes_local._vendor.llama_recipes"


@pytest.fixture(scope="module")
def original(wheel: bytes, lock: Lock) -> dict[str, bytes]:
    return read_wheel(wheel, lock)


@pytest.fixture(scope="module")
def rewritten(original: dict[str, bytes]) -> dict[str, bytes]:
    return rewrite_imports(original)


def test_the_counts_of_the_locked_release(
    original: dict[str, bytes], rewritten: dict[str, bytes]
) -> None:
    changed = [path for path in original if original[path] != rewritten[path]]
    assert len(changed) == 13
    assert sum(content.count(NEW) for content in rewritten.values()) == 46


def test_no_other_byte_changes(original: dict[str, bytes], rewritten: dict[str, bytes]) -> None:
    assert all(b"llama_recipes_local" not in content for content in original.values())
    assert list(rewritten) == list(original)
    back = {path: text.replace(NEW, b"llama_recipes") for path, text in rewritten.items()}
    assert back == original


def test_no_import_is_left(rewritten: dict[str, bytes]) -> None:
    """Read by the tokenizer, which shares nothing with how the rewriting finds them."""
    left = {}
    for path, content in rewritten.items():
        if path.endswith(".py"):
            for token in tokenize.tokenize(io.BytesIO(content).readline):
                if token.type == tokenize.NAME and token.string == "llama_recipes":
                    left[f"{path}:{token.start[0]}"] = token.line
    assert len(left) == 46
    assert all("llama_recipes_local._vendor.llama_recipes" in line for line in left.values())


def test_every_file_still_parses(rewritten: dict[str, bytes]) -> None:
    sources = {path: text for path, text in rewritten.items() if path.endswith(".py")}
    assert sources
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of upstream's invalid escapes
        for path, text in sources.items():
            ast.parse(text, path)


def test_strings_stay(rewritten: dict[str, bytes]) -> None:
    assert b"project: str = 'llama_recipes'" in rewritten["llama_recipes/configs/wandb.py"]
    paths = re.findall(
        rb'"src/llama_recipes/[^"]+"', rewritten["llama_recipes/configs/datasets.py"]
    )
    assert len(paths) == 3


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"from llama_recipes import x\n", b"from NEW import x\n"),
        (b"from  llama_recipes.a.b  import x ,y  \n", b"from  NEW.a.b  import x ,y  \n"),
        (b"if 1:\n\tfrom llama_recipes.a import x", b"if 1:\n\tfrom NEW.a import x"),
        (b"a = 1\r\nfrom llama_recipes.a import x\r\n", b"a = 1\r\nfrom NEW.a import x\r\n"),
        (b"from llama_recipes.a import (\n  x,\n)\n", b"from NEW.a import (\n  x,\n)\n"),
        (b"'\xc3\xa9'; from llama_recipes import x\n", b"'\xc3\xa9'; from NEW import x\n"),
        (b"'''\nfrom llama_recipes import x\n'''\n", None),
        (b"# from llama_recipes import x\n", None),
        (b"from llama_recipes_other import x\n", None),
        (b"from . import llama_recipes\n", None),
        (b"from .llama_recipes import x\n", None),
        (b"x = 'llama_recipes'\n", None),
    ],
)
def test_the_rule(source: bytes, expected: bytes | None) -> None:
    content, count = rewrite_source(source, "x.py")
    assert count == (expected is not None)
    assert content == (source if expected is None else expected.replace(b"NEW", NEW))


@pytest.mark.parametrize(
    "source",
    [
        b"import llama_recipes\n",
        b"import os, llama_recipes.a\n",
        b"import llama_recipes.a as b\n",
        b"from \\\n llama_recipes import x\n",
    ],
)
def test_a_form_that_the_rule_does_not_cover_is_refused(source: bytes) -> None:
    with pytest.raises(VendoringError, match=r"x\.py:1 .* not cover"):
        rewrite_source(source, "x.py")


def test_one_import_more_is_refused(original: dict[str, bytes]) -> None:
    files = {**original, "llama_recipes/more.py": b"from llama_recipes import x\n"}
    with pytest.raises(VendoringError, match="rewrote 47 imports in 14 files"):
        rewrite_imports(files)


def test_one_import_more_in_the_same_files_is_refused(original: dict[str, bytes]) -> None:
    path = "llama_recipes/finetuning.py"
    files = {**original, path: original[path] + b"from llama_recipes import x\n"}
    with pytest.raises(VendoringError, match="rewrote 47 imports in 13 files"):
        rewrite_imports(files)


def test_one_file_less_is_refused(original: dict[str, bytes]) -> None:
    path = "llama_recipes/inference/safety_utils.py"
    files = {**original, path: b""}
    with pytest.raises(VendoringError, match="rewrote 45 imports in 12 files"):
        rewrite_imports(files)


def test_the_same_number_in_other_files_is_refused(original: dict[str, bytes]) -> None:
    files = {
        **original,
        "llama_recipes/inference/safety_utils.py": b"",
        "llama_recipes/finetuning.py": original["llama_recipes/finetuning.py"]
        + b"from llama_recipes import x\n",
    }
    with pytest.raises(VendoringError, match="rewrote 46 imports in 12 files"):
        rewrite_imports(files)


def test_the_target_is_the_copys_package() -> None:
    assert f"{TARGET_PACKAGE}.llama_recipes".encode() == NEW

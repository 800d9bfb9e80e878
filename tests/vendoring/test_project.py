"""The project's own patches: they pass the lint, apply, and leave upstream's main() alone."""

import ast
import shutil
import warnings
from pathlib import Path

import pytest

from llama_recipes_local.vendoring.building import build_copy, read_inputs
from llama_recipes_local.vendoring.checkout import Checkout
from llama_recipes_local.vendoring.lint import check

FINETUNING = "llama_recipes/finetuning.py"


@pytest.fixture(scope="module")
def copy(project: Checkout, upstream: dict[str, bytes]) -> dict[str, bytes]:
    return build_copy(upstream, read_inputs(project))


def main_source(source: bytes) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of upstream's invalid escapes
        tree = ast.parse(source)
    (main,) = (
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    segment = ast.get_source_segment(source.decode(), main)
    assert segment is not None and segment.count("\n") > 100
    return segment


def test_the_patches_pass_the_lint(project: Checkout) -> None:
    assert check(project).problems == []


def test_the_patches_change_what_they_say(
    project: Checkout, copy: dict[str, bytes], upstream: dict[str, bytes]
) -> None:
    assert set(copy) - set(upstream) == {"manifest.json"}
    changed = {path for path in upstream if copy[path] != upstream[path]}
    assert bool(changed) == bool(read_inputs(project).patches)


def test_main_is_upstreams_byte_for_byte(
    copy: dict[str, bytes], upstream: dict[str, bytes]
) -> None:
    assert main_source(copy[FINETUNING]) == main_source(upstream[FINETUNING])


def test_no_tool_changes_a_patchs_bytes(project: Checkout, tmp_path: Path) -> None:
    attributes = project.root / ".gitattributes"
    shutil.copy(attributes, tmp_path)
    lines = attributes.read_text(encoding="utf-8").splitlines()
    assert "patches/*.patch -text -whitespace" in lines

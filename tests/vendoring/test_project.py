"""The project's own patches: they pass the lint, apply, and leave upstream's main() alone."""

import ast
import subprocess
import warnings

import pytest
from git_checkout import needs_checkout

from llama_recipes_local.vendoring.building import build_copy, read_inputs
from llama_recipes_local.vendoring.checkout import Checkout
from llama_recipes_local.vendoring.lint import check
from llama_recipes_local.vendoring.series import parse_patches

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
    patches = parse_patches(read_inputs(project).patches)
    assert changed == {path for patch in patches for path in patch.targets}


def test_main_is_upstreams_byte_for_byte(
    copy: dict[str, bytes], upstream: dict[str, bytes]
) -> None:
    assert main_source(copy[FINETUNING]) == main_source(upstream[FINETUNING])


@needs_checkout
def test_git_leaves_a_patchs_bytes_alone(project: Checkout) -> None:
    said = subprocess.run(
        ["git", "check-attr", "text", "whitespace", "--", "patches/any.patch"],
        cwd=project.root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert said == "patches/any.patch: text: unset\npatches/any.patch: whitespace: unset\n"

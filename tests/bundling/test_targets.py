"""The pip commands are ones that pip takes, for the target's own torch."""

import re
import subprocess
from pathlib import Path

import pytest
from pip._internal.commands import create_command

from llama_recipes_local.bundling.targets import (
    CPU,
    PIP,
    PYTHONS,
    TORCH,
    all_targets,
    constraints,
    in_bash,
    pip_commands,
    read_target,
)
from llama_recipes_local.errors import UsageError

PROJECT = Path(__file__).resolve().parents[2]
CONSTRAINTS = (PROJECT / "constraints.txt").read_text("utf-8")


def test_pip_takes_the_commands_of_every_target() -> None:
    targets = all_targets()
    assert len(targets) >= 20
    for target in targets[:: len(PYTHONS) + 1]:
        for python, dash_m, pip, name, *words in pip_commands(target, ["dev"]):
            assert (python, dash_m, pip) == (f"python{target.python}", "-m", "pip")
            options, rest = create_command(name).parse_args(words)
            assert rest
            if options.python_version if name == "download" else None:
                assert options.python_version == tuple(map(int, target.python.split(".")))
                if options.platforms:
                    assert {f"manylinux_2_{minor}_x86_64" for minor in (17, 18, 27, 28)} <= {
                        *options.platforms
                    }
                    assert "manylinux_2_34_x86_64" not in options.platforms


@pytest.mark.command
def test_bash_reads_the_shorter_form_as_the_same_words() -> None:
    for words in pip_commands(read_target("cu128-py312"), ["dev"]):
        line = f"printf '%s\\n' {in_bash(words)}"
        said = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        assert said.stdout.splitlines() == words


def test_the_build_of_the_package_index_has_no_tag_and_no_other_is_taken_for_it() -> None:
    """pip's own packaging library says what its requirement takes."""
    from pip._vendor.packaging.requirements import Requirement

    target = read_target("cu130-py312")
    download, *_ = pip_commands(target, ["dev"], torch_source=PIP)
    assert not {"--index-url", "--no-index", "--find-links"} & {*download}
    taken = Requirement(download[-1]).specifier
    assert [taken.contains(word) for word in ("2.13.0", "2.13.0+cpu", "2.13.1")] == [1, 0, 0]
    assert download[-1] in constraints(target, CONSTRAINTS, PIP).splitlines()


def test_a_target_is_named_by_cuda_and_python() -> None:
    target = read_target("cu128-py312")
    assert (target.cuda, target.python, target.driver) == ("12.8", "3.12", "525.60.13")
    assert target.torch == "torch==2.11.0+cu128"
    assert target.torch in constraints(target, CONSTRAINTS)
    assert read_target("cpu-py311").driver == ""


@pytest.mark.parametrize("word", ["cu127-py312", "cu128-py39", "cuda", "", "cu128"])
def test_an_unknown_target_is_refused_with_those_there_are(word: str) -> None:
    with pytest.raises(UsageError, match="cu126, cu128") as error:
        read_target(word)
    assert "py313" in str(error.value)


def test_the_torch_that_the_tests_run_with_is_the_one_that_is_brought() -> None:
    pinned = re.search(r"^torch==([^+\n]*)\+?(.*)$", CONSTRAINTS, re.MULTILINE)
    assert pinned is not None
    version, build = pinned[1], pinned[2] or CPU  # with one, the tree came in a bundle
    assert {TORCH[target.cuda] for target in all_targets() if target.build == build} == {version}


@pytest.mark.parametrize("page", ["docs/install.md", "docs/install.zh-CN.md"])
def test_the_builds_of_torch_that_the_page_on_installing_names_are_targets(page: str) -> None:
    text = (PROJECT / page).read_text("utf-8")
    older, newest = (read_target(f"{build}-py312") for build in ("cu129", "cu130"))
    assert f"s/^torch==.*/{older.torch}/" in text and older.torch_index in text
    assert older.driver in text and newest.driver in text
    assert read_target("cu126-py312").torch.replace("cu126", older.build) == older.torch

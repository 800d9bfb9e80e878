"""Upstream's modules and names under this package's name, and what happens without the copy."""

import importlib
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llama_recipes_local import _upstream

PACKAGE = Path(_upstream.__file__).parent


@pytest.mark.parametrize(
    "name",
    [
        "inference",  # no counterpart here
        "inference.prompt_format_utils",
        "data.llama_guard",  # below a package that exists here
        "data.llama_guard.finetuning_data_formatter",
        "datasets.grammar_dataset.grammar_dataset",
        "utils.memory_utils",
    ],
)
def test_a_module_without_a_counterpart_is_upstreams_own(name: str) -> None:
    ours = importlib.import_module(f"llama_recipes_local.{name}")
    assert ours is importlib.import_module(f"{_upstream.VENDORED}.{name}")
    assert ours.__spec__ is not None and ours.__spec__.name == f"{_upstream.VENDORED}.{name}"


def test_an_aliased_module_is_an_attribute_of_its_package() -> None:
    import llama_recipes_local.data.sampler
    import llama_recipes_local.inference.prompt_format_utils as prompts

    assert llama_recipes_local.inference.prompt_format_utils is prompts
    assert llama_recipes_local.data.sampler is _upstream.load("data.sampler")


@pytest.mark.parametrize("name", ["configs", "data.concatenator", "datasets", "finetuning"])
def test_a_module_with_a_counterpart_is_ours(name: str) -> None:
    ours = importlib.import_module(f"llama_recipes_local.{name}")
    assert ours is not _upstream.load(name)
    assert ours.__file__ is not None and "_vendor" not in ours.__file__


def test_a_module_that_was_imported_alone_is_its_packages_own() -> None:
    alone = _upstream.load_alone("configs.wandb")
    assert _upstream.load("configs").wandb_config is alone.wandb_config
    assert _upstream.load("configs.wandb") is _upstream.load_alone("configs.wandb") is alone


def test_a_script_of_upstreams_runs_under_this_packages_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Upstream's README calls it with ``python -m llama_recipes.tools...``."""
    name = "tools.convert_hf_weights_to_llama"
    monkeypatch.delitem(sys.modules, f"llama_recipes_local.{name}", raising=False)
    names = runpy.run_module(f"llama_recipes_local.{name}", run_name="not main")
    assert names["__file__"] == _upstream.load(name).__file__
    assert callable(names["main"])


def test_private_modules_have_no_alias() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("llama_recipes_local.nothing_of_that_name")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("llama_recipes_local.inference.nothing_of_that_name")


def test_the_finder_is_installed_once() -> None:
    before = list(sys.meta_path)
    _upstream.install_aliases()
    assert sys.meta_path == before


def test_fall_back_supplies_the_names_that_are_not_replaced() -> None:
    from llama_recipes_local.utils import train_utils

    theirs = _upstream.load("utils.train_utils")
    assert "set_tokenizer_params" not in vars(train_utils)
    assert train_utils.set_tokenizer_params is theirs.set_tokenizer_params
    assert train_utils.train is not theirs.train


def test_fall_back_names_an_attribute_that_nobody_has() -> None:
    from llama_recipes_local.utils import train_utils

    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        train_utils.nothing_of_that_name  # noqa: B018


@pytest.fixture(scope="module")
def without_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as it is in a fresh checkout."""
    folder = tmp_path_factory.mktemp("fresh")
    ignore = shutil.ignore_patterns("_vendor*", "__pycache__")
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=ignore)
    return folder


@pytest.mark.parametrize("module", ["configs", "inference", "inference.model_utils", "tools"])
def test_without_the_copy_one_line_names_the_command(
    module: str, without_copy: Path, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import llama_recipes_local.{module}"],
        cwd=without_copy,
        env={**environment, "PYTHONPATH": str(without_copy)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    folder = without_copy / PACKAGE.name / "_vendor"
    assert last == (
        f"ImportError: the vendored copy of llama-recipes is missing in {folder}; "
        "make it with: python -m llama_recipes_local.vendoring make"
    )


@pytest.mark.parametrize("words", [("doctor",), ("plan", "--model_name", "x"), ("--help",)])
def test_without_the_copy_commands_say_how_it_is_made(
    words: tuple[str, ...], without_copy: Path, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llama_recipes_local", *words],
        cwd=without_copy,
        env={**environment, "PYTHONPATH": str(without_copy)},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if words == ("--help",) else 2)
    said = "fix: make it: python -m llama_recipes_local.vendoring make" in done.stderr
    assert said == (words != ("--help",))

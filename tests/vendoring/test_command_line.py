"""The commands, run as a person runs them: what is printed, where, and the exit code."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from llama_recipes_local.vendoring.__main__ import main
from llama_recipes_local.vendoring.checkout import PACKAGE_DIR, Checkout
from llama_recipes_local.vendoring.making import MakeReport

pytestmark = pytest.mark.command

AddPatch = Callable[..., bytes]

WANDB = "llama_recipes/configs/wandb.py"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(checkout: Checkout) -> Run:
    """Runs a command in the checkout, which gets the code under test."""
    (checkout.package / "__init__.py").write_text("")
    shutil.copytree(
        PACKAGE_DIR / "vendoring",
        checkout.package / "vendoring",
        ignore=shutil.ignore_patterns("__pycache__"),
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "llama_recipes_local.vendoring", *arguments],
            cwd=checkout.root,
            capture_output=True,
            text=True,
        )

    return run


def test_make(run: Run, checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch()
    done = run("make")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1] == "  there is no copy yet"
    done = run("make")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{checkout.vendor} is fresh: nothing to do\n"


def test_a_copy_made_by_command_is_fresh_for_the_functions(
    run: Run, checkout: Checkout, no_pip: None
) -> None:
    run("make")
    program = (
        "from llama_recipes_local import vendoring as v;"
        "print(v.is_made(), v.vendor_dir(), v.read_manifest().wheel)"
    )
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, cwd=checkout.root, capture_output=True, text=True).stdout.split()
    assert said[:2] == ["True", str(checkout.vendor)]
    assert said[2] in checkout.lock.read_text()


def test_the_functions_without_a_copy(run: Run, checkout: Checkout) -> None:
    program = (
        "from llama_recipes_local import vendoring as v\n"
        "print(v.is_made())\n"
        "try:\n    v.read_manifest()\n"
        "except v.VendoringError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=checkout.root, capture_output=True, text=True
    )
    first, second = done.stdout.splitlines()
    assert first == "False"
    assert second.endswith("make it with: python -m llama_recipes_local.vendoring make")


def test_a_folder_of_wheels(run: Run, checkout: Checkout, wheel: bytes, tmp_path: Path) -> None:
    shutil.rmtree(checkout.wheels)
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "llama_recipes-0.0.4.post1-py3-none-any.whl").write_bytes(wheel)
    done = run("make", "--no-index", "--find-links", str(folder), "--", "--no-cache-dir")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_arguments_that_pip_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[str] = []

    def make(checkout: Checkout, pip_arguments: Sequence[str]) -> MakeReport:
        received.extend(pip_arguments)
        return MakeReport((), ())

    monkeypatch.setattr("llama_recipes_local.vendoring.__main__.make", make)
    options = ["--no-index", "--find-links", "a b", "--find-links=c", "--index-url", "u"]
    assert main(["make", *options, "--", "--timeout", "9", "--", "x"]) == 0
    expected = ["--find-links=a b", "--find-links=c", "--no-index", "--index-url=u"]
    assert received == [*expected, "--timeout", "9", "--", "x"]


def test_a_wheel_that_cannot_be_fetched(run: Run, checkout: Checkout, tmp_path: Path) -> None:
    shutil.rmtree(checkout.wheels)
    lock = checkout.lock.read_text()
    checkout.lock.write_text(lock.replace("0.0.4.post1", "0.0.0"))
    done = run("make", "--no-index", "--", f"--find-links={tmp_path}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: pip could not fetch llama-recipes 0.0.0")
    assert str(tmp_path) in done.stderr and "Traceback" not in done.stderr


def test_check(run: Run, checkout: Checkout, add_patch: AddPatch) -> None:
    add_patch()
    done = run("check", "--apply")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the series applies" in done.stdout
    checkout.series.write_bytes(b"")
    done = run("check")
    assert done.returncode == 1
    assert done.stderr == "problem: 0001-wandb.patch is not listed in the series\n"


def test_refresh(run: Run, checkout: Checkout) -> None:
    run("make")
    with (checkout.vendor / WANDB).open("ab") as file:
        file.write(b"\n")
    patch = checkout.patches / "0001-new.patch"
    place = f"llama_recipes_local/_vendor/{WANDB}"
    done = run("refresh", "patches/0001-new.patch", "--file", place)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{patch}: written\n", "")
    done = run("refresh", "0001-new.patch")
    assert done.stdout == f"{patch}: has the same bytes as before\n"
    done = run("refresh", "0002-new.patch")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_an_installed_package(run: Run, checkout: Checkout) -> None:
    shutil.rmtree(checkout.patches)
    for command in (["make"], ["check"], ["refresh", "0001-new.patch"]):
        done = run(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert "is not in a checkout" in done.stderr and done.stderr.count("\n") == 1


def test_a_place_that_cannot_be_written(run: Run, checkout: Checkout) -> None:
    checkout.guard.mkdir()
    done = run("make")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and str(checkout.guard) in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["make", "--unknown"], ["refresh"]])
def test_misuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m llama_recipes_local.vendoring")


@pytest.mark.parametrize("arguments", [[], ["make"], ["check"], ["refresh"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    assert "pip" in capsys.readouterr().out


def test_nothing_beyond_the_standard_library_is_imported(run: Run, checkout: Checkout) -> None:
    program = (
        "import sys; before = set(sys.modules)\n"
        "import llama_recipes_local.vendoring.__main__\n"
        "names = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(names - sys.stdlib_module_names))"
    )
    # -I and -S: no site-packages to import from; the checkout is put on the path by hand.
    program = f"import sys; sys.path.insert(0, {str(checkout.root)!r})\n{program}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True
    )
    assert done.stdout == "['llama_recipes_local']\n", done.stderr

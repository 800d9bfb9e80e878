"""A wheel of this project is whole and its source archive holds none of upstream's files.

Built by pip from a copy of the checkout, in pip's isolated environment.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from git_checkout import needs_checkout

from llama_recipes_local.vendoring import manifest as manifests
from llama_recipes_local.vendoring.checkout import Checkout
from llama_recipes_local.vendoring.lock import Lock

pytestmark = [pytest.mark.install, needs_checkout]

VENDOR = "llama_recipes_local/_vendor"


@pytest.fixture(scope="module")
def source(project: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout's files as git would commit them, so without the copy."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=project.root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    source = tmp_path_factory.mktemp("source")
    for name in filter(None, listed.split("\0")):
        if (project.root / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(project.root / name, source / name)
    assert (source / "hatch_build.py").is_file()
    assert not (source / VENDOR).exists()
    return source


@pytest.fixture(scope="module")
def environment(
    wheel: bytes, lock: Lock, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Where pip finds upstream's wheel, given as a user gives it to ``pip install``."""
    folder = tmp_path_factory.mktemp("wheels")
    (folder / f"llama_recipes-{lock.version}-py3-none-any.whl").write_bytes(wheel)
    given = os.environ.get("PIP_FIND_LINKS", "").split()
    own = [each if "://" in each else str(Path(each).absolute()) for each in given]
    return {**os.environ, "PIP_FIND_LINKS": " ".join([*own, str(folder)])}


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def built(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


@pytest.fixture(scope="module")
def archive(
    source: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The source archive, made where a copy lies about."""
    copy = tmp_path_factory.mktemp("archived") / "source"
    shutil.copytree(source, copy)
    run(["-m", "llama_recipes_local.vendoring", "make"], copy, environment)
    assert (copy / VENDOR / "manifest.json").is_file()
    run(["-m", "build", "--sdist", "--no-isolation", "--outdir", ".."], copy, environment)
    return built(copy.parent, "*.tar.gz")


def assert_whole(wheel: Path, tmp_path: Path) -> None:
    """The wheel holds a copy that is as its own manifest says, and nothing else of the making."""
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        assert f"{VENDOR}/llama_recipes/finetuning.py" in names
        assert not [name for name in names if "_vendor." in name or "__pycache__" in name]
        assert not [name for name in names if name.startswith(("patches/", "tests/"))]
        file.extractall(tmp_path)
    record = manifests.load(tmp_path / VENDOR)
    assert record is not None
    assert len(record.files) == 52
    assert manifests.file_hashes(tmp_path / VENDOR) == record.files


def test_the_wheel_is_whole(source: Path, environment: dict[str, str], tmp_path: Path) -> None:
    # A copy that was in use: bytecode in it, the lock file and the kept wheel next to it.
    run(["-m", "llama_recipes_local.vendoring", "make"], source, environment)
    run(["-m", "compileall", "-q", f"{VENDOR}/llama_recipes/data"], source, environment)
    assert list((source / VENDOR).rglob("*.pyc"))
    run(["-m", "pip", "wheel", "--no-deps", "-w", str(tmp_path), "."], source, environment)
    assert_whole(built(tmp_path, "*.whl"), tmp_path / "unpacked")


def test_the_source_archive_has_no_copy(archive: Path) -> None:
    with tarfile.open(archive) as file:
        names = [name.partition("/")[2] for name in file.getnames()]
    assert not [name for name in names if name.startswith("llama_recipes_local/_vendor")]
    assert {"patches/upstream.txt", "patches/series", "hatch_build.py"} <= set(names)


def test_the_wheel_of_the_source_archive_is_whole(
    archive: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    command = ["-m", "pip", "wheel", "--no-deps", "-w", str(tmp_path), str(archive)]
    run(command, tmp_path, environment)
    assert_whole(built(tmp_path, "*.whl"), tmp_path / "unpacked")


def test_an_editable_install_makes_the_copy(
    source: Path, environment: dict[str, str], lock: Lock, tmp_path: Path
) -> None:
    copy = tmp_path / "source"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("_vendor*"))
    run(["-m", "venv", "--without-pip", "installed"], tmp_path, environment)
    interpreter = tmp_path / "installed" / "bin" / "python"
    install = ["install", "--no-deps", "--editable", str(copy)]
    run(["-m", "pip", "--python", str(interpreter), *install], tmp_path, environment)
    program = "from llama_recipes_local import vendoring; print(vendoring.read_manifest().wheel)"
    command = [str(interpreter), "-c", program]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert said.strip() == lock.sha256
    assert manifests.load(copy / VENDOR) is not None


def test_a_wheel_that_cannot_be_fetched_stops_the_build(
    source: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    copy = tmp_path / "source"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("_vendor*"))
    lock = copy / "patches" / "upstream.txt"
    lock.write_text(lock.read_text().replace("0.0.4.post1", "0.0.0"))
    # -I: a build backend does not have the project's root on its path.
    done = subprocess.run(
        [sys.executable, "-I", "-c", "from hatchling.build import build_wheel; build_wheel('..')"],
        cwd=copy,
        env={**environment, "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: pip could not fetch llama-recipes 0.0.0")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.whl"))

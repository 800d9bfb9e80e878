"""Checkouts to vendor in: small trees in a temporary folder, with the project's lock.

They take the locked wheel, which is fetched once, but none of the project's patches, so that these
tests hold whatever the series says.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llama_recipes_local.vendoring.building import build_upstream
from llama_recipes_local.vendoring.checkout import PACKAGE_DIR, Checkout
from llama_recipes_local.vendoring.diffing import unified_diff
from llama_recipes_local.vendoring.fetch import fetch_wheel
from llama_recipes_local.vendoring.lock import Lock, read_lock

HEADER = b"""\
Description: swaps a name for one of ours; a wrapper would come too late
Author: A Developer
Forwarded: not-needed
Last-Update: 2026-01-31
Seam: configs.wandb
Test: tests/test_seam.py::test_seam
Drop-When: upstream takes the name as an argument

"""

WANDB = "llama_recipes/configs/wandb.py"


@pytest.fixture(scope="session")
def project() -> Checkout:
    """The checkout under test; nothing is written to it."""
    return Checkout(PACKAGE_DIR.parent)


@pytest.fixture(scope="session")
def lock(project: Checkout) -> Lock:
    return read_lock(project.lock)


@pytest.fixture(scope="session")
def wheels(project: Checkout, lock: Lock, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of kept wheels, with the locked one; from the project if that has it."""
    folder = tmp_path_factory.mktemp("fetched")
    fetching = Checkout(folder)
    shutil.copytree(project.patches, fetching.patches)
    fetching.package.mkdir()
    if project.wheels.is_dir():
        shutil.copytree(project.wheels, fetching.wheels)
    fetch_wheel(fetching, lock)
    return fetching.wheels


@pytest.fixture(scope="session")
def wheel(wheels: Path, lock: Lock) -> bytes:
    """The locked wheel."""
    return (wheels / f"{lock.sha256}.whl").read_bytes()


@pytest.fixture(scope="session")
def upstream(
    wheels: Path, lock: Lock, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Upstream's files before any patch, by path in the copy."""
    checkout = Checkout(tmp_path_factory.mktemp("upstream"))
    checkout.package.mkdir()
    shutil.copytree(wheels, checkout.wheels)
    return build_upstream(checkout, lock)


@pytest.fixture
def bare_checkout(project: Checkout, tmp_path: Path) -> Iterator[Checkout]:
    """A checkout without patches, copy and kept wheel, and with the test that HEADER names."""
    checkout = Checkout(tmp_path / "checkout")
    checkout.package.mkdir(parents=True)
    checkout.patches.mkdir()
    shutil.copy(project.lock, checkout.lock)
    checkout.series.write_bytes(b"# no patches yet\n")
    test = checkout.root / "tests" / "test_seam.py"
    test.parent.mkdir()
    test.write_text("def test_seam():\n    pass\n", encoding="utf-8")
    yield checkout
    # pytest would keep some megabytes of each test.
    shutil.rmtree(checkout.root)


@pytest.fixture
def checkout(bare_checkout: Checkout, wheels: Path) -> Checkout:
    """The same, with the wheel kept in it, so that no test fetches it again."""
    shutil.copytree(wheels, bare_checkout.wheels)
    return bare_checkout


AddPatch = Callable[..., bytes]


@pytest.fixture
def add_patch(checkout: Checkout, upstream: dict[str, bytes]) -> AddPatch:
    """Writes a patch that replaces ``old`` by ``new`` in one of upstream's files, and lists it."""

    def add(
        name: str = "0001-wandb.patch",
        path: str = WANDB,
        old: bytes = b"'llama_recipes'",
        new: bytes = b"'ours'",
        header: bytes = HEADER,
    ) -> bytes:
        assert old in upstream[path]
        content = header + unified_diff(path, upstream[path], upstream[path].replace(old, new, 1))
        (checkout.patches / name).write_bytes(content)
        with checkout.series.open("ab") as series:
            series.write(name.encode() + b"\n")
        return content

    return add


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test if anything is fetched."""

    def refuse(*arguments: object) -> bytes:
        raise AssertionError("the wheel was fetched")

    monkeypatch.setattr("llama_recipes_local.vendoring.fetch._download", refuse)

"""The wheel comes through pip from any place, and only the locked one is accepted."""

import io
import zipfile
from pathlib import Path

import pytest

from llama_recipes_local.vendoring import fetch
from llama_recipes_local.vendoring.checkout import Checkout
from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.lock import Lock

pytestmark = pytest.mark.command


@pytest.fixture
def folder(tmp_path: Path, wheel: bytes, lock: Lock) -> Path:
    """A folder of wheels, as a person without a package index has it."""
    folder = tmp_path / "wheels with a space"
    folder.mkdir()
    (folder / f"llama_recipes-{lock.version}-py3-none-any.whl").write_bytes(wheel)
    return folder


def tampered(wheel: bytes) -> bytes:
    """A wheel that pip would install, with one file more."""
    content = io.BytesIO(wheel)
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("llama_recipes/extra.py", "")
    return content.getvalue()


def test_from_a_folder_without_an_index(
    bare_checkout: Checkout, lock: Lock, folder: Path, wheel: bytes
) -> None:
    options = ["--no-index", f"--find-links={folder}"]
    assert fetch.fetch_wheel(bare_checkout, lock, options) == wheel


def test_from_where_pips_variables_point(
    bare_checkout: Checkout,
    lock: Lock,
    folder: Path,
    wheel: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    # pip splits this variable at white space.
    plain = folder.rename(folder.with_name("wheels"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(plain))
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")
    assert fetch.fetch_wheel(bare_checkout, lock) == wheel


def test_the_wheel_is_kept(
    bare_checkout: Checkout,
    lock: Lock,
    folder: Path,
    wheel: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ["--no-index", f"--find-links={folder}"]
    fetch.fetch_wheel(bare_checkout, lock, options)
    with monkeypatch.context() as patched:
        patched.setattr(fetch, "_download", lambda *arguments: pytest.fail("fetched again"))
        assert fetch.fetch_wheel(bare_checkout, lock) == wheel
    (kept,) = bare_checkout.wheels.iterdir()
    assert kept.name == f"{lock.sha256}.whl"
    kept.write_bytes(tampered(wheel))
    assert fetch.fetch_wheel(bare_checkout, lock, options) == wheel
    assert kept.read_bytes() == wheel


def test_pip_refuses_another_hash(
    bare_checkout: Checkout, lock: Lock, folder: Path, wheel: bytes
) -> None:
    (path,) = folder.iterdir()
    path.write_bytes(tampered(wheel))
    with pytest.raises(VendoringError, match="HASH") as caught:
        fetch.fetch_wheel(bare_checkout, lock, ["--no-index", f"--find-links={folder}"])
    assert "PIP_FIND_LINKS=FOLDER" in str(caught.value)
    assert not bare_checkout.wheels.exists()


def test_another_hash_is_refused_whatever_pip_says(
    bare_checkout: Checkout, lock: Lock, wheel: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_download", lambda *arguments: tampered(wheel))
    with pytest.raises(VendoringError, match="it is not upstream's release"):
        fetch.fetch_wheel(bare_checkout, lock)
    assert not bare_checkout.wheels.exists()


def test_a_wheel_that_is_not_found(bare_checkout: Checkout, lock: Lock, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    options = ["--no-index", f"--find-links={empty}"]
    # A folder in pip's own configuration would be looked into as well.
    other = Lock(lock.line.replace(lock.version, "0.0.0"), lock.name, "0.0.0", lock.sha256)
    bare_checkout.lock.write_text(other.line)
    with pytest.raises(VendoringError) as caught:
        fetch.fetch_wheel(bare_checkout, other, options)
    message = str(caught.value)
    assert "tried: " in message and str(empty) in message
    assert "No matching distribution" in message
    assert "PIP_FIND_LINKS=FOLDER PIP_NO_INDEX=1" in message


def test_pip_is_missing(
    bare_checkout: Checkout, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(VendoringError, match="python -m ensurepip"):
        fetch.fetch_wheel(bare_checkout, lock)


def test_passwords_are_not_shown(lock: Lock) -> None:
    command = ["pip", "--index-url=https://me:secret@index.example/simple"]
    message = fetch._failure(lock, command, "again", "Looking in indexes: x\n")
    assert "https://****@index.example/simple" in message
    assert "secret" not in message

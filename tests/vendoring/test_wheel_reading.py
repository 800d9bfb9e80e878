"""Nothing of a wheel is unpacked outside the copy."""

import io
import warnings
import zipfile

import pytest

from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.lock import Lock
from llama_recipes_local.vendoring.wheel import read_wheel


def archive(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that occur twice
        for name in names:
            file.writestr(zipfile.ZipInfo(name), name)
    return content.getvalue()


def test_the_locked_wheel(wheel: bytes, lock: Lock) -> None:
    files = read_wheel(wheel, lock)
    with zipfile.ZipFile(io.BytesIO(wheel)) as file:
        package = {name for name in file.namelist() if name.startswith("llama_recipes/")}
        assert len(package) == 50
        assert set(files) == package | {"dist-info/METADATA"}
        assert all(files[name] == file.read(name) for name in package)


def test_metadata_and_licences_are_kept(lock: Lock) -> None:
    info = lock.dist_info
    content = archive(
        "llama_recipes/",
        "llama_recipes/a.py",
        f"{info}/METADATA",
        f"{info}/licenses/LICENSE",
        f"{info}/RECORD",
        f"{info}/WHEEL",
    )
    assert sorted(read_wheel(content, lock)) == [
        "dist-info/METADATA",
        "dist-info/licenses/LICENSE",
        "llama_recipes/a.py",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "../a.py",
        "llama_recipes/../../a.py",
        "/llama_recipes/a.py",
        "llama_recipes//a.py",
        "llama_recipes/./a.py",
        "llama_recipes/..\\a.py",
        "llama_recipes/C:a.py",
        "other/a.py",
        "llama_recipes",
        "a.py",
        "manifest.json",
        "llama_recipes-9.dist-info/METADATA",
    ],
)
def test_a_path_outside_is_refused(name: str, lock: Lock) -> None:
    with pytest.raises(VendoringError, match="which is in neither"):
        read_wheel(archive("llama_recipes/a.py", name), lock)


def test_a_path_that_occurs_twice_is_refused(lock: Lock) -> None:
    with pytest.raises(VendoringError, match="twice"):
        read_wheel(archive("llama_recipes/a.py", "llama_recipes/a.py"), lock)

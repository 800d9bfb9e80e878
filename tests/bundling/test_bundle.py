"""A bundle names each byte that is not as it was made, and what its machine lacks."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llama_recipes_local.bundling import bundle_making, installer
from llama_recipes_local.bundling.bill_of_materials import write_bill
from llama_recipes_local.bundling.targets import CPU, PIP, Target
from llama_recipes_local.errors import UsageError

HERE = "{}.{}".format(*sys.version_info)


def put_wheel(folder: Path, name: str, licence: str, *needs: str) -> None:
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        lines = ("Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0")
        needed = [f"Requires-Dist: {each}" for each in needs]
        about = "\n".join((*lines, *needed, f"License-Expression: {licence}", ""))
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", about)
        wheel.writestr(f"{name}-1.0.dist-info/licenses/LICENSE", f"the {licence} of {name}")
        wheel.writestr(f"{name}/__init__.py", "")


def made(folder: Path, target: Target) -> Path:
    """Make a small bundle, which has all kinds of files."""
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    for number in range(8):
        put_wheel(wheels, f"part{number}", "MIT" if number % 2 else "Apache-2.0")
    (wheels / "constraints.txt").write_text(target.torch + "\n")
    for name in ("pyproject.toml", "tests/test_a.py"):
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "source" / name).write_text(name)
    bundle_making.complete(folder, target)
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return made(tmp_path / "bundle", Target("cpu", HERE))


def files_of(bundle: Path) -> list[Path]:
    return sorted(path for path in bundle.rglob("*") if path.is_file())


def install(bundle: Path, *words: str, **own: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHON": sys.executable, **own}
    command = ["sh", str(bundle / "install"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_one_flipped_byte_in_each_file_is_named(bundle: Path) -> None:
    files = files_of(bundle)
    assert len(files) >= 20
    for path in files:
        content = path.read_bytes()
        flip(path)
        (problem,) = installer.altered_files(bundle)
        assert str(path) in problem and "altered" in problem
        path.write_bytes(content)


@pytest.mark.command
def test_nothing_is_installed_from_what_was_altered(bundle: Path) -> None:
    assert install(bundle, "--check").returncode == 0
    wheel = bundle / "wheels/part3-1.0-py3-none-any.whl"
    for path in (bundle / "install", bundle / "install.py", bundle / "SHA256SUMS", wheel):
        content = path.read_bytes()
        flip(path)
        done = install(bundle, "there")
        assert done.returncode != 0, path
        assert path.name in done.stdout + done.stderr, path
        assert not Path("there").exists()
        path.write_bytes(content)


def test_a_file_that_is_missing_or_was_added_is_named(bundle: Path) -> None:
    assert installer.altered_files(bundle) == []
    (bundle / "wheels/part1-1.0-py3-none-any.whl").unlink()
    (bundle / "wheels/more.whl").touch()
    missing, more = installer.altered_files(bundle)
    assert "part1-1.0-py3-none-any.whl is missing" in missing
    assert "more.whl is not of the bundle" in more


@pytest.mark.command
def test_another_python_is_refused_by_its_version(tmp_path: Path) -> None:
    other = "3.10" if HERE != "3.10" else "3.11"
    done = install(made(tmp_path / "bundle", Target("cpu", other)), str(tmp_path / "there"))
    assert done.returncode == 2
    assert f"for Python {other}" in done.stderr and HERE in done.stderr
    assert not (tmp_path / "there").exists()


@pytest.mark.command
@pytest.mark.parametrize(("driver", "refused"), [("470.82.01", True), ("580.95.05", False)])
def test_an_older_driver_is_refused(driver: str, refused: bool, tmp_path: Path) -> None:
    bundle = made(tmp_path / "bundle", Target("12.8", HERE))
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho {driver}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    taken = tmp_path / "there"
    taken.mkdir()
    (taken / "file").touch()  # is refused too, later
    done = install(bundle, str(taken), PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 2
    assert (f"driver is {driver}, needed is 525.60.13" in done.stdout) == refused
    assert ("holds files already" in done.stdout) != refused


def test_no_driver_is_refused_but_where_an_image_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "driver_version", lambda: "")
    about = {"python": HERE, "driver": "580.65.06"}
    (problem,) = installer.machine_problems(about, without_driver=False)
    assert "needed is 580.65.06 or newer" in problem and "--without_driver" in problem
    assert installer.machine_problems(about, without_driver=True) == []
    assert installer.machine_problems({**about, "driver": ""}, without_driver=False) == []
    monkeypatch.setattr(installer, "driver_version", lambda: "575.57.08")
    assert len(installer.machine_problems(about, without_driver=True)) == 1  # there is one: too old


def test_an_old_driver_is_a_problem() -> None:
    assert installer.driver_problems("525.60.13", "525.60.13") == []
    assert installer.driver_problems("580.65.06", "575.57.08") != []


@pytest.mark.command
def test_a_place_that_is_taken_is_left_as_it_is(bundle: Path, tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("mine")
    done = install(bundle, str(taken))
    assert (done.returncode, done.stderr) == (2, "")
    assert f"refused: {taken} holds files already" in done.stdout
    assert taken.read_text() == "mine"


def test_a_disk_that_is_too_full_is_named(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installer, "HERE", bundle)
    assert installer.disk_problem(tmp_path / "there") == ""
    usage = installer.shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(installer.shutil, "disk_usage", lambda path: usage)
    assert f"{tmp_path} has 0.0 GB free" in installer.disk_problem(tmp_path / "there")


def test_the_bill_of_materials_is_cyclonedx(bundle: Path) -> None:
    """The reference is the schema that CycloneDX publishes, and the wheels themselves."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (bundle / "sbom.cdx.json").read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    parts = {part["bom-ref"]: part for part in json.loads(text)["components"]}
    assert parts.keys() == {path.name for path in (bundle / "wheels").glob("*.whl")}
    for name, part in parts.items():
        (found,) = part["hashes"]
        assert found["content"] == installer.sha256(bundle / "wheels" / name)
        assert part["purl"] == f"pkg:pypi/{part['name']}@1.0"
    licences = {part["licenses"][0]["license"]["id"] for part in parts.values()}
    assert licences == {"MIT", "Apache-2.0"}
    assert (bundle / "licences/part1-1.0/licenses-LICENSE").read_text() == "the MIT of part1"


# what torch's wheels on package indexes require, by their version: 2.13, 2.6, and one for the CPU
TORCHES = [
    ('cuda-toolkit[cublas,cudart]==13.0.3; platform_system == "Linux"', "13.0"),
    ("nvidia-cuda-runtime-cu12==12.6.77; platform_system == 'Linux'", "12.6"),
    ("nvidia-cuda-runtime-cu12 (==12.6.77)", "12.6"),
    ("nvidia-cudnn-cu13==9.20.0.48", CPU),
    ("cuda-bindings<14,>=13.0.3", CPU),
]


@pytest.mark.parametrize(("needed", "cuda"), TORCHES)
def test_the_cuda_of_a_torch_without_a_tag_is_read_from_what_it_requires(
    needed: str, cuda: str, tmp_path: Path
) -> None:
    put_wheel(tmp_path, "torch", "BSD-3-Clause", "filelock", needed)
    target = Target(cuda, HERE)
    bundle_making.check_torch(target, tmp_path)
    with pytest.raises(UsageError, match=f"built for .*{cuda}, says torch-1.0") as error:
        bundle_making.check_torch(Target("12.8", HERE), tmp_path)
    assert f"fix: TARGET={target.name}; or leave TORCH_INDEX out" in str(error.value)


def test_a_cuda_that_no_target_has_is_not_proposed(tmp_path: Path) -> None:
    put_wheel(tmp_path, "torch", "BSD-3-Clause", "cuda-toolkit[cudart]==14.1.0")
    with pytest.raises(UsageError, match=r"built for CUDA 14\.1") as error:
        bundle_making.check_torch(Target("12.8", HERE), tmp_path)
    assert "fix: leave TORCH_INDEX out" in str(error.value)
    assert PIP in str(error.value)


@pytest.mark.parametrize(
    "said",
    [
        [],
        ["License: UNKNOWN"],
        ["License: Copyright (c) 2001 The Developers.", "        All rights reserved."],
    ],
)
def test_a_licence_that_only_classifiers_name_is_in_the_bill(
    said: list[str], tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "old-1.0-py3-none-any.whl", "w") as wheel:
        lines = ["Metadata-Version: 2.1", "Name: old", "Version: 1.0", *said]
        lines += ["Classifier: License :: OSI Approved :: BSD License", "Classifier: Topic :: Text"]
        wheel.writestr("old-1.0.dist-info/METADATA", "\n".join((*lines, "")))
    write_bill(tmp_path / "bill.json", [*tmp_path.glob("*.whl")])
    (part,) = json.loads((tmp_path / "bill.json").read_text("utf-8"))["components"]
    assert part["licenses"] == [{"license": {"name": "BSD License"}}]


def test_a_target_without_its_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    other = "3.10" if HERE != "3.10" else "3.11"
    with pytest.raises(UsageError, match=f"python{other}, which is not here"):
        bundle_making.find_python(Target("cpu", other))
    assert bundle_making.find_python(Target("cpu", HERE)) == sys.executable


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("python: No module named pip", "python: No module named pip"),
        ("WARNING: a\nERROR: no torch\nERROR: no match", "ERROR: no torch"),
        ("", "nothing"),
    ],
)
def test_what_pip_says_is_shown(said: str, shown: str, tmp_path: Path) -> None:
    words = ["sh", "-c", 'printf %s "$0" >&2; exit 1', said, "torch"]
    with pytest.raises(UsageError, match=f"it says: {shown}"):
        bundle_making._run_pip(words, tmp_path)

"""Makes a bundle: wheels, source, licences, a bill of materials, hashes, and what installs them."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from llama_recipes_local import __version__
from llama_recipes_local.bundling.bill_of_materials import metadata_of, write_bill
from llama_recipes_local.bundling.installer import ABOUT, SUM_OF_SUMS, SUMS, sha256
from llama_recipes_local.bundling.targets import (
    CPU,
    PIP,
    TORCH,
    Target,
    constraints,
    pip_commands,
)
from llama_recipes_local.errors import refusal
from llama_recipes_local.storage.publishing import published_folder, write_json, write_text
from llama_recipes_local.vendoring.checkout import Checkout

_LICENCE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS|USE_POLICY).*", re.IGNORECASE)
_TEMPLATES = Path(__file__).parent


def extras_of(target: Target) -> list[str]:
    """Return the extras that a bundle has: all but flash-attn, which is published as source."""
    return ["dev"] if target.cuda == CPU else ["dev", "fast"]


def make_bundle(checkout: Checkout, target: Target, out: Path, torch_source: str = "") -> None:
    """Make a bundle's folder, which appears whole or not at all.

    Args:
        checkout: the source tree.
        target: what it is for.
        out: the folder, which is replaced.
        torch_source: see ``pip_commands``.

    Raises:
        UsageError: if the target's Python is missing, or a wheel cannot be fetched.
    """
    python = find_python(target)
    with published_folder(out) as draft:
        fetch_wheels(checkout, target, python, draft / "wheels", torch_source)
        copy_source(checkout.root, draft / "source")
        complete(draft, target)


def find_python(target: Target) -> str:
    """Return the Python that fetches a target's wheels: one of its version.

    Raises:
        UsageError: if there is none, or it has no pip.
    """
    if target.python == "{}.{}".format(*sys.version_info):
        return sys.executable
    name = f"python{target.python}"
    found = shutil.which(name)
    tried = (
        subprocess.run([found, "-m", "pip", "--version"], capture_output=True) if found else None
    )
    if found and tried and not tried.returncode:
        return found
    why = "pip judges the conditions of requirements by the Python that runs it"
    lacking = "does not run with pip" if found else "is not here"
    what = f"{target.name} is made with {name}, which {lacking}"
    raise refusal(what, why, f"install {name} with pip, or make the bundle where it is")


def fetch_wheels(
    checkout: Checkout, target: Target, python: str, wheels: Path, torch_source: str
) -> None:
    """Fetch all wheels with pip.

    Raises:
        UsageError: if pip fails, or torch is built for another CUDA.
    """
    wheels.mkdir(parents=True)
    text = (checkout.root / "constraints.txt").read_text("utf-8")
    (wheels / "constraints.txt").write_text(constraints(target, text, torch_source), "utf-8")
    torch, *others = pip_commands(target, extras_of(target), str(wheels), torch_source)
    _run_pip([python, *torch[1:]], checkout.root)
    if torch_source == PIP:
        check_torch(target, wheels)
    for words in others:
        _run_pip([python, *words[1:]], checkout.root)
    unbuilt = [path.name for path in wheels.glob("*.tar.gz")]
    assert not unbuilt, unbuilt


def _run_pip(words: list[str], root: Path) -> None:
    print(f"--> pip {' '.join(words[3:5])} ... {words[-1]}", flush=True)
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run([*words, *quiet], cwd=root, stderr=subprocess.PIPE, text=True)
    if not done.returncode:
        return
    lines = done.stderr.splitlines()
    said = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["nothing"]
    fix = "name where it is: PIP_INDEX_URL, PIP_FIND_LINKS; for torch TORCH_INDEX=URL|DIR, or "
    fix += "TORCH_INDEX=pip for the build that the package index has"
    raise refusal(f"pip cannot fetch {words[-1]}", f"it says: {said[0]}", fix)


def check_torch(target: Target, wheels: Path) -> None:
    """Check that torch is built for the target's CUDA, which the requirements of its wheel tell.

    Raises:
        UsageError: if it is built for another one.
    """
    (wheel,) = wheels.glob("torch-*.whl")
    runtime = r"(?:cuda-toolkit|nvidia-cuda-runtime)[^=;]*==\s*(\d+\.\d+)"
    needed = "\n".join(metadata_of(wheel).get_all("Requires-Dist", []))
    match = re.search(runtime, needed)
    found = Target(match[1] if match else CPU, target.python)
    if found.cuda == target.cuda:
        return
    why = f"that torch is built for {'CUDA ' if match else 'the '}{found.cuda}, says {wheel.name}"
    fix = "leave TORCH_INDEX out for torch's own index, or name a mirror of it: TORCH_INDEX=URL"
    if found.cuda in TORCH:
        fix = f"TARGET={found.name}; or {fix}"
    raise refusal(f"TARGET={target.name} with TORCH_INDEX={PIP}", why, fix)


def copy_source(root: Path, folder: Path) -> None:
    """Copy what belongs to the source tree, as its source archive does.

    Raises:
        subprocess.CalledProcessError: if the archive cannot be built.
    """
    with TemporaryDirectory() as built:
        words = [sys.executable, "-m", "hatchling", "build", "--target", "sdist"]
        subprocess.run([*words, "--directory", built], cwd=root, check=True, capture_output=True)
        (archive,) = Path(built).glob("*.tar.gz")
        with tarfile.open(archive) as files:
            files.extractall(built, filter="data")
        (unpacked,) = (path for path in Path(built).iterdir() if path.is_dir())
        shutil.copytree(unpacked, folder)


def complete(bundle: Path, target: Target) -> None:
    """Write what a bundle has beside its wheels and source; the hashes last."""
    wheels = sorted((bundle / "wheels").glob("*.whl"))
    for wheel in wheels:
        _copy_licences(wheel, bundle / "licences")
    write_bill(bundle / "sbom.cdx.json", wheels)
    about = {
        "target": target.name,
        "python": target.python,
        "driver": target.driver,
        "extras": ",".join(extras_of(target)),
        "version": __version__,
    }
    write_json(bundle / ABOUT, about)
    shutil.copyfile(_TEMPLATES / "installer.py", bundle / "install.py")
    script = (_TEMPLATES / "install").read_text("utf-8").replace("@PYTHON@", target.python)
    write_text(bundle / "install", script.replace("@SHA256@", sha256(bundle / "install.py")))
    write_sums(bundle)


def write_sums(bundle: Path) -> None:
    """Write the hash of each file, and of that list."""
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    lines = [f"{sha256(path)}  {path.relative_to(bundle).as_posix()}\n" for path in files]
    write_text(bundle / SUMS, "".join(lines))
    write_text(bundle / SUM_OF_SUMS, sha256(bundle / SUMS) + "\n")


def _copy_licences(wheel: Path, folder: Path) -> None:
    """Copy the licences that a wheel has into a folder of its name and version."""
    own = folder / "-".join(wheel.name.split("-")[:2])
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = PurePosixPath(name)
            if ".dist-info/" in name and _is_licence(path.parts):
                own.mkdir(parents=True, exist_ok=True)
                (own / "-".join(path.parts[1:])).write_bytes(archive.read(name))


def _is_licence(parts: Sequence[str]) -> bool:
    return _LICENCE.fullmatch(parts[-1]) is not None or "licenses" in parts[1:-1]

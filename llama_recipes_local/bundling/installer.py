"""Installs from the folder that it lies in, without a network; the standard library is enough.

``make bundle`` copies this file to ``install.py``, which ``install`` runs with the right Python. It
changes nothing before all files have the hashes that they were made with.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ABOUT, SUMS, SUM_OF_SUMS = "bundle.json", "SHA256SUMS", "SHA256SUMS.sha256"
RECORD = ".bundle.json"  # in the installed folder, written last
STAMPS = (".installed", ".installed-quantization", ".installed-sft", ".installed-dev")
MODEL = "models/smollm2-135m-instruct"
BLOCK = 1 << 22


def main() -> int:
    """Check, then install; return the exit code: 0 done, 1 failed, 2 refused."""
    parser = argparse.ArgumentParser(prog="sh install", description=__doc__)
    parser.add_argument("folder", nargs="?", default="llama-recipes-local", metavar="DIR")
    parser.add_argument("--check", action="store_true", help="compare the files, install nothing")
    without = "install where no driver is, as where an image is built"
    parser.add_argument("--without_driver", action="store_true", help=without)
    options = parser.parse_args()
    started = time.monotonic()
    problems = altered_files(HERE)
    if not problems and not options.check:
        about = json.loads((HERE / ABOUT).read_text("utf-8"))
        problems = machine_problems(about, options.without_driver)
    if problems:
        print("refused: nothing was installed", file=sys.stderr)
        print("\n".join(f"{number}. {each}" for number, each in enumerate(problems, 1)))
        return 2
    if options.check:
        print(f"{HERE}: every file is as it was made")
        return 0
    return install(about, Path(options.folder).absolute(), started)


def sha256(path: Path) -> str:
    """Return a file's hash."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def altered_files(bundle: Path) -> list[str]:
    """Return a line for each file that is missing, altered, or not part of the bundle."""
    again = "copy it again"
    for name in (SUMS, SUM_OF_SUMS):
        if not (bundle / name).is_file():
            return [f"{bundle / name} is missing: {again}"]
    if (bundle / SUM_OF_SUMS).read_bytes().strip() != sha256(bundle / SUMS).encode():
        return [f"{bundle / SUMS} or {bundle / SUM_OF_SUMS} is altered: copy both again"]
    lines = (bundle / SUMS).read_text("utf-8").splitlines()
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    problems = [
        f"{bundle / name} is altered: {again}"
        for name, digest in expected.items()
        if name in found and sha256(bundle / name) != digest
    ]
    problems += [f"{bundle / name} is missing: {again}" for name in expected.keys() - found]
    more = found - expected.keys() - {SUMS, SUM_OF_SUMS}
    return sorted(problems) + [f"{bundle / name} is not of the bundle: remove it" for name in more]


def machine_problems(about: dict[str, str], without_driver: bool) -> list[str]:
    """Return how this machine differs from the one that the bundle was made for."""
    problems = []
    own = ".".join(platform.python_version_tuple()[:2])
    if own != about["python"] or sys.implementation.name != "cpython":
        wanted = f"CPython {about['python']}"
        problems.append(f"Python is {sys.implementation.name} {own}, the bundle is for {wanted}")
    machine = f"{platform.system()} {platform.machine()}"
    if machine != "Linux x86_64":
        problems.append(f"the machine is {machine}, the bundle is for Linux x86_64")
    name, version = platform.libc_ver()
    if name != "glibc" or numbers(version) < (2, 28):
        problems.append(f"the C library is {name or 'not glibc'} {version}, needed is glibc 2.28")
    found = driver_version()
    if about["driver"] and (found or not without_driver):
        problems += driver_problems(about["driver"], found)
    return problems


def driver_problems(wanted: str, found: str) -> list[str]:
    """Return the problem if NVIDIA's driver is missing or too old."""
    if not found:
        what = f"no NVIDIA driver is seen here, needed is {wanted} or newer"
        return [f"{what}: install it, or where only an image is built: --without_driver"]
    if numbers(found) >= numbers(wanted):
        return []
    fix = "install a newer driver, or bring a bundle for another CUDA"
    return [f"NVIDIA's driver is {found}, needed is {wanted} or newer: {fix}"]


def driver_version() -> str:
    """Return the driver's version; "" if there is none."""
    if program := shutil.which("nvidia-smi"):
        words = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        said = subprocess.run(words, capture_output=True, text=True).stdout
        if match := re.search(r"^\d+(\.\d+)+", said.strip()):
            return match[0]
    try:
        text = Path("/proc/driver/nvidia/version").read_text("utf-8", "replace")
    except OSError:
        return ""
    match = re.search(r"\b(\d+\.\d+(\.\d+)?)\b", text)
    return match[1] if match else ""


def numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers."""
    return tuple(map(int, re.findall(r"\d+", version)))


def install(about: dict[str, str], folder: Path, started: float) -> int:
    """Copy the source, make its environment, the default model and data; return the exit code."""
    record, begun = folder / RECORD, folder / ".installing"
    if record.is_file() and record.read_text("utf-8") == (HERE / ABOUT).read_text("utf-8"):
        print(f"--> {folder} was installed from this bundle already")
        return 0
    if folder.exists() and not begun.is_file() and not (folder.is_dir() and is_empty(folder)):
        print(f"refused: {folder} holds files already: remove it, or sh install ANOTHER_DIR")
        return 2
    if problem := disk_problem(folder):
        print(f"refused: {problem}")
        return 2
    shutil.rmtree(folder, ignore_errors=True)
    count = len([*(HERE / "wheels").glob("*.whl")])
    what = f"{about['target']}, {count} packages, into {folder}"
    print(f"--> installing {what}: this takes some minutes", flush=True)
    shutil.copytree(HERE / "source", folder)
    begun.touch()
    shutil.copyfile(HERE / "wheels/constraints.txt", folder / "constraints.txt")
    try:
        run_steps(about["extras"], folder)
    except subprocess.CalledProcessError as error:
        print(f"failed: {' '.join(error.cmd)} ended with {error.returncode}", file=sys.stderr)
        return 1
    for name in STAMPS:
        (folder / ".venv" / name).touch()
    begun.unlink()
    shutil.copyfile(HERE / ABOUT, record)
    print(f"--> installed in {time.monotonic() - started:.0f} s; now")
    print(f"    cd {folder} && source .venv/bin/activate && llama-recipes-local doctor")
    return 0


def is_empty(folder: Path) -> bool:
    """Return whether a folder has nothing in it."""
    return not any(folder.iterdir())


def disk_problem(folder: Path) -> str:
    """Return the problem if the disk is too full for the unpacked wheels; "" if it is not."""
    there = next(path for path in folder.parents if path.is_dir())
    needed = 3 * sum(path.stat().st_size for path in (HERE / "wheels").iterdir())
    free = shutil.disk_usage(there).free
    if free >= needed:
        return ""
    figures = f"{free / 1e9:.1f} GB free, about {needed / 1e9:.1f} GB are needed"
    return f"{there} has {figures}: free space there, or sh install ANOTHER_DIR"


def run_steps(extras: str, folder: Path) -> None:
    """Make the environment, install into it, and make the default model and data.

    Raises:
        subprocess.CalledProcessError: if one of them fails.
    """
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PIP_")}
    environment.pop("PYTHONPATH", None)
    environment |= {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(HERE / "wheels"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    venv.create(folder / ".venv", with_pip=False, symlinks=True)
    python = str(folder / ".venv/bin/python")
    (pip,) = (HERE / "wheels").glob("pip-*.whl")  # runs from its wheel where there is no ensurepip
    constraints = ["--quiet", "--constraint", "constraints.txt"]
    for words in (
        [python, f"{pip}/pip", "install", "--quiet", "pip"],
        [python, "-m", "pip", "install", *constraints, "--editable", f".[{extras}]"],
        [python, "-m", "llama_recipes_local.vendoring", "make"],
        [python, "-m", "llama_recipes_local", "prepare", "smollm2", "--out", MODEL],
        [python, "-m", "llama_recipes_local", "prepare", "grammar"],
    ):
        subprocess.run(words, cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    sys.exit(main())

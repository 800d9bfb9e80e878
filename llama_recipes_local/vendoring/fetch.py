"""Fetches the locked wheel with pip, so that any index, mirror or folder of wheels works."""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llama_recipes_local.vendoring.checkout import MAKE_COMMAND, Checkout
from llama_recipes_local.vendoring.errors import VendoringError, WheelNotFoundError
from llama_recipes_local.vendoring.lock import Lock
from llama_recipes_local.vendoring.manifest import sha256

_PIP_LINES_SHOWN = 12


def fetch_wheel(checkout: Checkout, lock: Lock, pip_arguments: Sequence[str] = ()) -> bytes:
    """Return the locked wheel: the one kept from an earlier run, or else from pip.

    Args:
        checkout: where the wheel is kept.
        lock: the release and its hash.
        pip_arguments: further arguments for ``pip download``, such as ``--find-links``.

    Raises:
        VendoringError: if pip is missing, finds no such wheel, or the wheel's hash differs.
    """
    kept = checkout.wheels / f"{lock.sha256}.whl"
    if kept.is_file():
        content = kept.read_bytes()
        if sha256(content) == lock.sha256:
            return content
    content = download_wheel(checkout.lock, lock, MAKE_COMMAND, pip_arguments)
    checkout.wheels.mkdir(exist_ok=True)
    # Its own name, because a check may fetch at the same time.
    partial = kept.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(content)
    os.replace(partial, kept)
    return content


def verify(content: bytes, lock: Lock) -> None:
    """Refuse a wheel that is not the locked one.

    pip has compared the hash as well; this does not depend on how it was configured.
    """
    found = sha256(content)
    if found != lock.sha256:
        raise VendoringError(
            f"the wheel of {lock.name} {lock.version} has the SHA-256 {found}, but the lock names "
            f"{lock.sha256}; it is not upstream's release: check where it came from"
        )


def download_wheel(
    lock_file: Path, lock: Lock, command: str, pip_arguments: Sequence[str] = ()
) -> bytes:
    """Return a locked wheel from pip.

    Args:
        lock_file: the lock.
        lock: what it says.
        command: what the user runs again once the wheel can be found.
        pip_arguments: further arguments for ``pip download``.

    Raises:
        WheelNotFoundError: if pip finds no such wheel.
        VendoringError: if pip is missing, or the wheel's hash differs.
    """
    content = _download(lock_file, lock, command, pip_arguments)
    verify(content, lock)
    return content


def _download(lock_file: Path, lock: Lock, again: str, pip_arguments: Sequence[str]) -> bytes:
    if importlib.util.find_spec("pip") is None:
        raise VendoringError(
            f"{lock.name} {lock.version} is fetched with pip, and {sys.executable} has no pip; "
            "install it with: python -m ensurepip"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = _pip_command(lock_file, folder, pip_arguments)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        wheels = sorted(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            output = done.stdout.decode(errors="replace").strip()
            message = _failure(lock, command, again, output)
            if "DO NOT MATCH THE HASHES" in output:
                raise VendoringError(message)
            raise WheelNotFoundError(message, output.splitlines()[-1] if output else "nothing")
        return wheels[0].read_bytes()


def _pip_command(lock_file: Path, folder: str, pip_arguments: Sequence[str]) -> list[str]:
    """The wheel and nothing else: no dependencies, no source archive, no other hash."""
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-input"]
    quiet = ["--disable-pip-version-check", "--progress-bar=off"]
    target = ["--dest", folder, "--requirement", str(lock_file)]
    return [sys.executable, "-m", "pip", "download", *options, *quiet, *target, *pip_arguments]


def _failure(lock: Lock, command: Sequence[str], again: str, output: str) -> str:
    # An index's address may hold a password.
    tried = re.sub(r"://[^/\s@]*@", "://****@", " ".join(command))
    last = [f"    {line}" for line in output.strip().splitlines()[-_PIP_LINES_SHOWN:]]
    return "\n".join(
        [
            f"pip could not fetch {lock.name} {lock.version} with the locked hash",
            f"  tried: {tried}",
            "  pip said:",
            *last,
            "  fix: make a package index reachable (pip's configuration and PIP_* variables apply) "
            "or name a folder that has the wheel:",
            f"    PIP_FIND_LINKS=FOLDER PIP_NO_INDEX=1 {again}",
        ]
    )

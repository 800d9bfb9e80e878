"""The software and hardware that a result depends on: code, packages, device, threads."""

import hashlib
import importlib.metadata
import json
import platform
import re
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from llama_recipes_local import __version__, launch
from llama_recipes_local.extras import SOURCE, distributions_of
from llama_recipes_local.run.record import PACKAGES, code_hash
from llama_recipes_local.vendoring import read_manifest, vendor_dir
from llama_recipes_local.vendoring.manifest import file_hashes

_COMPUTING = re.compile("nvidia-|triton|pytorch-triton")
"""Packages of libraries that torch loads, and Python does not import."""


def code() -> dict[str, str]:
    """Return the version and the hash of this package's code, and the commit of a checkout."""
    commit = _commit(SOURCE / ".git")
    return {"version": __version__, "sha256": code_hash()} | ({"commit": commit} if commit else {})


def _commit(git: Path) -> str:
    """Return the commit that is checked out; "" if no file in git's folder names it."""
    try:
        head = (git / "HEAD").read_text("utf-8").strip()
        ref = head.removeprefix("ref: ")
        return head if ref == head else (git / ref).read_text("utf-8").strip()
    except (OSError, ValueError):
        return ""


def upstream() -> dict[str, Any]:
    """Return the lock and patches of llama-recipes' copy, and a hash of its files."""
    manifest = read_manifest()
    content = json.dumps(file_hashes(vendor_dir()))
    digest = hashlib.sha256(content.encode()).hexdigest()
    return {"lock": manifest.lock, "patches": dict(manifest.patches), "sha256": digest}


def packages() -> dict[str, str]:
    """Return the versions of the packages that this process has imported, by their names."""
    top = {name.partition(".")[0] for name in list(sys.modules)}  # others may import meanwhile
    names = {each for name in top for each in distributions_of().get(name, [])}
    names |= {each for each in _installed() if _COMPUTING.match(each)}
    return {name: version_of(name) for name in sorted(names)}


@cache
def _installed() -> list[str]:
    return [str(each.metadata["Name"]) for each in importlib.metadata.distributions()]


def version_of(package: str) -> str:
    """Return a package's version; if it was imported in another version, both."""
    try:
        installed = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        installed = "not installed"
    imported = import_module(package).__version__ if package in PACKAGES else installed
    return installed if imported == installed else f"{imported} (installed: {installed})"


def machine(dtype: str) -> dict[str, Any]:
    """Return the facts about machine and launch that affect numbers; ``dtype`` is the weights'."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {
        "device": gpu,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "ranks": launch.world_size(),
        "hosts": launch.world_size() // launch.ranks_of_host(),
        "torchrun": launch.launch() is not None,
    }

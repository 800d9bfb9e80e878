"""Builds the copy's content in memory: wheel, rewritten imports, patches, manifest.

Nothing here writes to the copy: ``making`` puts the result in place, ``lint`` compares it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_recipes_local.vendoring import manifest as manifests
from llama_recipes_local.vendoring.checkout import MAKE_COMMAND, Checkout
from llama_recipes_local.vendoring.fetch import fetch_wheel
from llama_recipes_local.vendoring.lock import Lock, read_lock
from llama_recipes_local.vendoring.manifest import Manifest, sha256
from llama_recipes_local.vendoring.patching import apply_patch
from llama_recipes_local.vendoring.rewrite import rewrite_imports
from llama_recipes_local.vendoring.series import parse_patches, read_patches, series_bytes
from llama_recipes_local.vendoring.wheel import read_wheel

_INIT = f"# Made from upstream's locked wheel by: {MAKE_COMMAND}\n".encode()
_SHAPING_MODULES = ("building.py", "patching.py", "rewrite.py", "wheel.py")


@dataclass(frozen=True)
class Inputs:
    """What a copy is made from.

    Attributes:
        lock: upstream's release and the hash of its wheel.
        series: the bytes of ``patches/series``.
        patches: the bytes of each listed patch by file name, in the series' order.
    """

    lock: Lock
    series: bytes
    patches: Mapping[str, bytes]


def read_inputs(checkout: Checkout) -> Inputs:
    """Read what the checkout's copy is made from, the wheel aside."""
    return Inputs(read_lock(checkout.lock), series_bytes(checkout), read_patches(checkout))


def tool_hash() -> str:
    """Return the hash of the code that shapes the copy's content."""
    folder = Path(__file__).parent
    return sha256(b"\0".join((folder / name).read_bytes() for name in _SHAPING_MODULES))


def build_upstream(
    checkout: Checkout, lock: Lock, pip_arguments: Sequence[str] = ()
) -> dict[str, bytes]:
    """Return upstream's files as they are before any patch, by path in the copy."""
    wheel = fetch_wheel(checkout, lock, pip_arguments)
    return {"__init__.py": _INIT, **rewrite_imports(read_wheel(wheel, lock))}


def build_copy(upstream: Mapping[str, bytes], inputs: Inputs) -> dict[str, bytes]:
    """Return all files of the copy, patched and with the manifest, by path.

    Args:
        upstream: the files from ``build_upstream``.
        inputs: the lock, the series and the patches.
    """
    files = dict(upstream)
    for patch in parse_patches(inputs.patches):
        files = apply_patch(patch, files)
    record = Manifest(
        lock=inputs.lock.line,
        wheel=inputs.lock.sha256,
        series=sha256(inputs.series),
        patches={name: sha256(content) for name, content in inputs.patches.items()},
        tool=tool_hash(),
        files={path: sha256(content) for path, content in sorted(files.items())},
    )
    return {**files, manifests.NAME: manifests.dump(record)}

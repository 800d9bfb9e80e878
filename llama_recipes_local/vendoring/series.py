"""The series: which patches there are, and in which order they are applied."""

import re
from collections.abc import Mapping, Sequence

from llama_recipes_local.vendoring.checkout import Checkout
from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.patching import Patch, parse_patch

PATCH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.patch")


def series_bytes(checkout: Checkout) -> bytes:
    """Return the bytes of the series; a checkout without one has no patches."""
    return checkout.series.read_bytes() if checkout.series.exists() else b""


def listed_names(series: bytes) -> list[str]:
    """Return what the series lists, line by line, without comments and blank lines."""
    lines = [line.strip() for line in series.decode(errors="replace").split("\n")]
    return [line for line in lines if line and not line.startswith("#")]


def read_patches(checkout: Checkout) -> dict[str, bytes]:
    """Return the bytes of each patch by file name, in the series' order.

    Raises:
        VendoringError: if the series lists what is not a patch, a patch twice or a missing one.
    """
    patches: dict[str, bytes] = {}
    for name in listed_names(series_bytes(checkout)):
        path = checkout.patches / name
        if not PATCH_NAME.fullmatch(name):
            raise VendoringError(
                f"{checkout.series} lists {name!r}; each line is the name of one file NAME.patch "
                "next to it, or a comment that starts with #"
            )
        if name in patches:
            raise VendoringError(f"{checkout.series} lists {name} twice; remove one of the lines")
        if not path.is_file():
            raise VendoringError(
                f"{checkout.series} lists {name}, but {path} is missing; restore the patch or "
                "remove the line"
            )
        patches[name] = path.read_bytes()
    return patches


def parse_patches(patches: Mapping[str, bytes]) -> list[Patch]:
    """Read the patches and make sure that no two of them change the same file.

    One patch for a file is what makes ``refresh`` sound: the difference between upstream's file and
    the copy's then belongs to that patch alone.
    """
    parsed = [parse_patch(name, content) for name, content in patches.items()]
    for problem in shared_targets(parsed):
        raise VendoringError(problem)
    return parsed


def shared_targets(patches: Sequence[Patch]) -> list[str]:
    """Return a problem for each file that more than one patch changes."""
    owners: dict[str, str] = {}
    problems = []
    for patch in patches:
        for path in patch.targets:
            owner = owners.setdefault(path, patch.name)
            if owner != patch.name:
                problems.append(
                    f"{patch.name}: {path} is also changed by {owner}; only one patch may change a "
                    "file, so put both changes into one"
                )
    return problems

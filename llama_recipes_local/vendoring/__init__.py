"""Makes, checks and refreshes the copy of upstream that this package patches.

The commands are ``python -m llama_recipes_local.vendoring make|check|refresh|seams``. The functions
here report to the rest of the package what is in place; they need neither a checkout nor anything
outside the standard library.
"""

from pathlib import Path

from llama_recipes_local.vendoring import manifest as _manifest
from llama_recipes_local.vendoring.checkout import MAKE_COMMAND, PACKAGE_DIR
from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.manifest import Manifest

__all__ = [
    "MAKE_COMMAND",
    "Manifest",
    "VendoringError",
    "is_made",
    "read_manifest",
    "vendor_dir",
]


def vendor_dir() -> Path:
    """Return the folder of the copy, whether it has been made or not."""
    return PACKAGE_DIR / "_vendor"


def is_made() -> bool:
    """Return whether there is a copy with a manifest; its files are not compared with it."""
    return _manifest.load(vendor_dir()) is not None


def read_manifest() -> Manifest:
    """Return the record of what the copy was made from and what it holds.

    Raises:
        VendoringError: if there is no copy; the message names the command that makes it.
    """
    record = _manifest.load(vendor_dir())
    if record is None:
        raise VendoringError(
            f"the copy of llama-recipes is missing in {vendor_dir()}; make it with: {MAKE_COMMAND}"
        )
    return record

"""Paths: the checkout with its patches, the copy of upstream and what is kept next to it.

Every other module of this package takes a ``Checkout``, so that tests can give one of their own.
"""

from dataclasses import dataclass
from pathlib import Path

from llama_recipes_local.vendoring.errors import VendoringError

PACKAGE = "llama_recipes_local"
PACKAGE_DIR = Path(__file__).resolve().parent.parent
MAKE_COMMAND = f"python -m {PACKAGE}.vendoring make"


@dataclass(frozen=True)
class Checkout:
    """A source tree of this project.

    All that the vendoring commands write is the copy and its neighbours ``_vendor.*``: on one file
    system, so that a finished copy can be renamed into place.

    Attributes:
        root: the folder that holds ``llama_recipes_local`` and ``patches``.
    """

    root: Path

    @property
    def package(self) -> Path:
        """The package's folder, which the copy is made in."""
        return self.root / PACKAGE

    @property
    def patches(self) -> Path:
        """The folder of the lock, the series and the patches."""
        return self.root / "patches"

    @property
    def lock(self) -> Path:
        """The lock: upstream's release and the hash of its wheel."""
        return self.patches / "upstream.txt"

    @property
    def series(self) -> Path:
        """The list of the patches, in the order they are applied in."""
        return self.patches / "series"

    @property
    def vendor(self) -> Path:
        """The copy in place."""
        return self.package / "_vendor"

    @property
    def staging(self) -> Path:
        """The copy while it is being made."""
        return self.package / "_vendor.new"

    @property
    def retired(self) -> Path:
        """The copy that is being replaced, between two renames."""
        return self.package / "_vendor.old"

    @property
    def edited(self) -> Path:
        """Files edited by hand that the last rebuild replaced."""
        return self.package / "_vendor.edited"

    @property
    def wheels(self) -> Path:
        """Where the locked wheel is kept, so that a rebuild needs no network."""
        return self.package / "_vendor.wheels"

    @property
    def guard(self) -> Path:
        """The lock file, which lets one process at a time change the copy."""
        return self.package / "_vendor.lock"


def this_checkout() -> Checkout:
    """Return the checkout that this code runs from.

    Raises:
        VendoringError: if the package was installed, so that there are no patches.
    """
    checkout = Checkout(PACKAGE_DIR.parent)
    if not checkout.lock.is_file():
        raise VendoringError(
            f"{PACKAGE_DIR} is not in a checkout: {checkout.lock} is missing; an installed package "
            "contains its copy of upstream, so there is nothing to make, check or refresh here"
        )
    return checkout

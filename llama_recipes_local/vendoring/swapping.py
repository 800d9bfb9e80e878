"""Puts a finished copy in place: whole or not at all, one process at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from llama_recipes_local.vendoring import manifest as manifests
from llama_recipes_local.vendoring.checkout import Checkout


@contextmanager
def exclusive(checkout: Checkout) -> Iterator[None]:
    """Wait until no other process changes the copy, then clean up after one that was killed.

    The system releases the lock when the process ends, however it does; the lock file itself stays.
    """
    with checkout.guard.open("ab") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        _recover(checkout)
        yield


def _recover(checkout: Checkout) -> None:
    if checkout.retired.exists() and not checkout.vendor.exists():
        # Killed between the two renames of put_in_place.
        os.replace(checkout.retired, checkout.vendor)
    for leftover in (checkout.staging, checkout.retired):
        if leftover.exists():
            shutil.rmtree(leftover)


def put_in_place(checkout: Checkout, files: Mapping[str, bytes]) -> list[str]:
    """Write the files next to the copy in place and swap the two; call within ``exclusive``.

    Files of the old copy that were edited by hand are kept in ``_vendor.edited``.

    Args:
        checkout: where the copy goes.
        files: all files of the new copy by path.

    Returns:
        The paths of the edited files that were kept.
    """
    try:
        _write(checkout.staging, files)
        kept = _keep_edited(checkout, files)
        if checkout.vendor.exists():
            os.replace(checkout.vendor, checkout.retired)
        os.replace(checkout.staging, checkout.vendor)
    finally:
        _recover(checkout)
    return kept


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _keep_edited(checkout: Checkout, files: Mapping[str, bytes]) -> list[str]:
    """Save what the swap would lose: content that is in neither the manifest nor the new copy."""
    if not checkout.vendor.is_dir():
        return []
    record = manifests.load(checkout.vendor)
    made = record.files if record else {}
    edited: dict[str, bytes] = {}
    for path, found in manifests.file_hashes(checkout.vendor).items():
        if found != made.get(path):
            content = (checkout.vendor / path).read_bytes()
            if content != files.get(path):
                edited[path] = content
    if edited:
        shutil.rmtree(checkout.edited, ignore_errors=True)
        _write(checkout.edited, edited)
    return list(edited)

"""What belongs to this package on this machine: its copy of llama-recipes and its cache."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from llama_recipes_local.commands.doctor.diagnosis import Finding, State
from llama_recipes_local.data.cache import ABOUT, ENVIRONMENT_VARIABLE, ROWS, cache_folder
from llama_recipes_local.program import command, python
from llama_recipes_local.storage.disk import free_bytes
from llama_recipes_local.storage.publishing import remove
from llama_recipes_local.vendoring import is_made, read_manifest
from llama_recipes_local.vendoring.building import read_inputs
from llama_recipes_local.vendoring.checkout import Checkout, this_checkout
from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.freshness import edited_files, stale_reasons

_MIB = 2**20


def examine() -> Iterator[Finding]:
    """Compare the copy with its hashes, and measure the cache."""
    yield _copy(this_checkout())
    yield _cache(cache_folder())


def _copy(checkout: Checkout) -> Finding:
    name, fix = "llama-recipes", f"{python()} -m llama_recipes_local.vendoring make"
    if not is_made():
        return Finding(name, State.BROKEN, "the patched copy has not been made", fix)
    try:
        manifest = read_manifest()
        if checkout.patches.is_dir():
            reasons = stale_reasons(checkout, read_inputs(checkout))
        else:  # an installed package, which has no patches to compare with
            reasons = edited_files(checkout, manifest)
    except (VendoringError, OSError) as error:
        return Finding(name, State.BROKEN, str(error), fix)
    if reasons:
        return Finding(name, State.BROKEN, f"the patched copy: {'; '.join(reasons)}", fix)
    text = f"{manifest.lock.split()[0]} with {len(manifest.patches)} patches, as its hashes say"
    return Finding(name, State.WORKS, text)


def _cache(folder: Path) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    fix = f"set {ENVIRONMENT_VARIABLE} to a folder that can be written"
    if not there.is_dir():
        return Finding("cache", State.BROKEN, f"{folder}: {there} is not a folder", fix)
    if not os.access(there, os.W_OK):
        text = f"{there} cannot be written: data whose tokens it does not hold cannot be prepared"
        return Finding("cache", State.DOUBTFUL, text, fix)
    entries = token_entries(folder)
    size = sum(_size(file) for entry in entries for file in entry.iterdir())
    text = f"{size / _MIB:,.0f} MiB of tokens in {len(entries)} entries, {folder}"
    removes = f"; {command('doctor', '--clean_cache')} removes them" if entries else ""
    return Finding("cache", State.WORKS, text + removes)


def _size(file: Path) -> int:
    """Return a file's bytes; 0 if another process has removed it meanwhile."""
    with contextlib.suppress(OSError):
        return file.stat().st_size
    return 0


def token_entries(folder: Path) -> list[Path]:
    """Return the entries of the cache of tokens, and nothing else that lies in its folder."""
    if not folder.is_dir():
        return []
    return sorted({file.parent for file in folder.rglob(ABOUT) if (file.parent / ROWS).is_file()})


def clean(folder: Path) -> str:
    """Remove all cached tokens, and return what was done, in words.

    A run that reads some keeps what it has open.
    """
    entries = token_entries(folder)
    before = free_bytes(folder) or 0
    for entry in entries:
        remove(entry)
    freed = ((free_bytes(folder) or 0) - before) / _MIB
    return f"removed {len(entries)} entries from {folder}, {max(freed, 0):,.0f} MiB"

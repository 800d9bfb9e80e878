"""Makes a patch again from the files as they were edited in the copy.

Only one patch may change a file, so what the copy's file has beyond upstream's, imports rewritten,
is that patch. The header stays; a new patch gets a template.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llama_recipes_local.vendoring import header
from llama_recipes_local.vendoring import manifest as manifests
from llama_recipes_local.vendoring.building import (
    Inputs,
    build_upstream,
    read_inputs,
    tool_hash,
)
from llama_recipes_local.vendoring.checkout import MAKE_COMMAND, Checkout
from llama_recipes_local.vendoring.diffing import unified_diff
from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.manifest import Manifest, sha256
from llama_recipes_local.vendoring.patching import Patch, apply_patch, parse_patch
from llama_recipes_local.vendoring.series import (
    PATCH_NAME,
    listed_names,
    parse_patches,
)
from llama_recipes_local.vendoring.swapping import exclusive


@dataclass(frozen=True)
class RefreshReport:
    """What ``refresh`` did.

    Attributes:
        changed: whether the patch has other bytes now.
        lines: the same for the reader.
    """

    changed: bool
    lines: tuple[str, ...]


def refresh(
    checkout: Checkout,
    name: str,
    files: Sequence[str] = (),
    pip_arguments: Sequence[str] = (),
) -> RefreshReport:
    """Write ``patches/NAME`` from the edited files of the copy, and record it in the manifest.

    Args:
        checkout: the source tree.
        name: the patch's file name; a new one is added at the end of the series.
        files: files for the patch in addition to those it already changes, by path in the copy.
        pip_arguments: further arguments for ``pip download``.

    Raises:
        VendoringError: if the copy is missing or was made from something else, a file belongs to
            another patch, nothing was edited, or a change made in the patch by hand would be lost.
    """
    if not PATCH_NAME.fullmatch(name):
        raise VendoringError(f"{name!r} is not the name of a patch, NAME.patch in patches/")
    with exclusive(checkout):
        inputs = read_inputs(checkout)
        record = _usable_record(checkout, inputs)
        upstream = build_upstream(checkout, inputs.lock, pip_arguments)
        old = _existing(checkout, inputs, name)
        paths = _targets(name, old, files, inputs)
        edited = {path: _edited(checkout, upstream, path) for path in paths}
        if old is not None:
            _refuse_lost_change(old, upstream, edited, record, inputs)
        content = _compose(name, old, upstream, edited)
        changed = inputs.patches.get(name) != content
        _save(checkout, name, content, record, inputs, edited)
    done = "written" if changed else "has the same bytes as before"
    return RefreshReport(changed, (f"{checkout.patches / name}: {done}",))


def _usable_record(checkout: Checkout, inputs: Inputs) -> Manifest:
    record = manifests.load(checkout.vendor)
    if record is None:
        raise VendoringError(f"there is no copy to take edits from; make it with: {MAKE_COMMAND}")
    if (record.lock, record.tool) != (inputs.lock.line, tool_hash()):
        raise VendoringError(
            "the copy was made with another lock or other vendoring code, so its differences from "
            f"upstream are not the edits alone; run: {MAKE_COMMAND} (it keeps edited files in "
            f"{checkout.edited}), put the edits back and refresh again"
        )
    return record


def _existing(checkout: Checkout, inputs: Inputs, name: str) -> Patch | None:
    if name in inputs.patches:
        return parse_patch(name, inputs.patches[name])
    if (checkout.patches / name).exists():
        raise VendoringError(
            f"{checkout.patches / name} exists, but the series does not list it; list it in "
            f"{checkout.series} and run: {MAKE_COMMAND}"
        )
    return None


def _targets(name: str, old: Patch | None, files: Sequence[str], inputs: Inputs) -> list[str]:
    """Which files the patch is made from, in order."""
    paths = sorted({*(old.targets if old else ()), *files})
    if not paths:
        raise VendoringError(f"{name} is new: name the file it changes with --file FILE")
    for other in parse_patches(inputs.patches):
        taken = [path for path in paths if path in other.targets and other.name != name]
        if taken:
            raise VendoringError(
                f"{taken[0]} is changed by {other.name}, and only one patch may change a file; "
                f"refresh {other.name} instead"
            )
    return paths


def _edited(checkout: Checkout, upstream: Mapping[str, bytes], path: str) -> bytes:
    if path not in upstream:
        raise VendoringError(
            f"{path} is not a file of the copy; give its path below {checkout.vendor}"
        )
    place = checkout.vendor / path
    if not place.is_file():
        raise VendoringError(f"{place} is missing; a patch cannot delete a file of upstream")
    return place.read_bytes()


def _refuse_lost_change(
    old: Patch,
    upstream: Mapping[str, bytes],
    edited: Mapping[str, bytes],
    record: Manifest,
    inputs: Inputs,
) -> None:
    """Refuse to overwrite hunks that someone changed in the patch since the copy was made."""
    if record.patches.get(old.name) == sha256(inputs.patches[old.name]):
        return
    patched = apply_patch(old, upstream)
    for path in old.targets:
        if sha256(patched[path]) not in (record.files.get(path), sha256(edited[path])):
            raise VendoringError(
                f"{old.name} was changed since the copy was made, and refreshing it from the copy "
                f"would lose that change to {path}; run: {MAKE_COMMAND} first"
            )


def _compose(
    name: str, old: Patch | None, upstream: Mapping[str, bytes], edited: Mapping[str, bytes]
) -> bytes:
    """Return the patch's bytes, proven to turn upstream's files into the edited ones."""
    diffs = [unified_diff(path, upstream[path], content) for path, content in edited.items()]
    if not any(diffs):
        raise VendoringError(
            f"{', '.join(edited)} in the copy is the same as upstream's, so {name} would be empty; "
            "to drop the patch, delete it and its line in the series"
        )
    content = b"".join([old.header if old else header.template(), *diffs])
    patched = apply_patch(parse_patch(name, content), upstream)
    assert all(patched[path] == text for path, text in edited.items())
    return content


def _save(
    checkout: Checkout,
    name: str,
    content: bytes,
    record: Manifest,
    inputs: Inputs,
    edited: Mapping[str, bytes],
) -> None:
    """Write the patch, the series and the manifest; anything else that is stale stays stale."""
    _write(checkout.patches / name, content)
    series = inputs.series
    if name not in listed_names(series):
        series += (b"" if series.endswith(b"\n") or not series else b"\n") + name.encode() + b"\n"
        _write(checkout.series, series)
    updated = replace(
        record,
        # A series that had changed before stays a reason to rebuild.
        series=sha256(series) if record.series == sha256(inputs.series) else record.series,
        patches={**record.patches, name: sha256(content)},
        files={**record.files, **{path: sha256(text) for path, text in edited.items()}},
    )
    _write(checkout.vendor / manifests.NAME, manifests.dump(updated))


def _write(path: Path, content: bytes) -> None:
    """Replace a file as a whole; one that already has these bytes is not touched."""
    if path.exists() and path.read_bytes() == content:
        return
    partial = path.with_name(f"{path.name}.part")
    partial.write_bytes(content)
    os.replace(partial, path)

"""Reports whether the copy in place matches the checkout, and if not, why."""

from collections.abc import Mapping

from llama_recipes_local.vendoring import manifest as manifests
from llama_recipes_local.vendoring.building import Inputs, tool_hash
from llama_recipes_local.vendoring.checkout import Checkout
from llama_recipes_local.vendoring.manifest import Manifest, sha256


def stale_reasons(checkout: Checkout, inputs: Inputs) -> list[str]:
    """Return why the copy in place must be rebuilt; an empty list means it is fresh.

    Needs no network: the manifest in the copy is compared with the checkout and with the files.
    """
    if not checkout.vendor.is_dir():
        return ["there is no copy yet"]
    record = manifests.load(checkout.vendor)
    if record is None:
        return ["the copy has no readable manifest"]
    return [*_changed_inputs(record, inputs), *edited_files(checkout, record)]


def _changed_inputs(record: Manifest, inputs: Inputs) -> list[str]:
    reasons = []
    if (record.lock, record.wheel) != (inputs.lock.line, inputs.lock.sha256):
        reasons.append("the lock changed")
    if record.tool != tool_hash():
        reasons.append("the vendoring code changed")
    current = {name: sha256(content) for name, content in inputs.patches.items()}
    patches = _differences(record.patches, current, "added", "removed")
    if not patches and record.series != sha256(inputs.series):
        reasons.append("the series changed")
    return [*reasons, *(f"patch {name} {change}" for name, change in patches.items())]


def edited_files(checkout: Checkout, record: Manifest) -> list[str]:
    """Return a reason for each file of the copy that is not as the manifest says."""
    current = manifests.file_hashes(checkout.vendor)
    changes = _differences(record.files, current, "does not belong to the copy", "missing")
    return [f"file {path} {change}" for path, change in changes.items()]


def _differences(
    before: Mapping[str, str], after: Mapping[str, str], added: str, removed: str
) -> dict[str, str]:
    """Describe, in order, each name that differs between the two sides."""
    differences = {}
    for name in sorted({*before, *after}):
        if name not in before:
            differences[name] = added
        elif name not in after:
            differences[name] = removed
        elif before[name] != after[name]:
            differences[name] = "changed"
    return differences

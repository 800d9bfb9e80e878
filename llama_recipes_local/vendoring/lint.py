"""Checks the series and its patches: offline by their text, or applied to the locked wheel."""

import ast
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llama_recipes_local.vendoring import manifest as manifests
from llama_recipes_local.vendoring.building import (
    Inputs,
    build_copy,
    build_upstream,
    read_inputs,
)
from llama_recipes_local.vendoring.checkout import MAKE_COMMAND, Checkout
from llama_recipes_local.vendoring.errors import VendoringError
from llama_recipes_local.vendoring.freshness import stale_reasons
from llama_recipes_local.vendoring.header import header_problems, read_header
from llama_recipes_local.vendoring.lock import read_lock
from llama_recipes_local.vendoring.manifest import sha256
from llama_recipes_local.vendoring.patching import Patch, parse_patch
from llama_recipes_local.vendoring.series import (
    PATCH_NAME,
    listed_names,
    parse_patches,
    series_bytes,
    shared_targets,
)

MAX_CHANGED_LINES = 59
"""The whole series stays below 60 added and removed lines: patches are seams, logic lives here."""


@dataclass
class CheckReport:
    """What ``check`` found.

    Attributes:
        problems: what must be fixed; empty if all is well.
        lines: further information for the reader.
    """

    problems: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def check(
    checkout: Checkout, apply: bool = False, pip_arguments: Sequence[str] = ()
) -> CheckReport:
    """Check the lock, the series and its patches, and report whether the copy in place is fresh.

    Args:
        checkout: the source tree to check.
        apply: also apply the series to the locked wheel, and compare the copy in place with it.
        pip_arguments: further arguments for ``pip download``, which only ``apply`` may need.

    Raises:
        VendoringError: if the wheel cannot be fetched.
    """
    report = CheckReport()
    _check_texts(checkout, report)
    try:
        inputs = read_inputs(checkout)
    except VendoringError:
        return report  # The check of the texts has reported why.
    _report_freshness(checkout, inputs, report)
    if apply:
        _check_applied(checkout, inputs, report, pip_arguments)
    return report


def _check_texts(checkout: Checkout, report: CheckReport) -> None:
    """The offline part: the lock, the series and each patch by itself."""
    try:
        read_lock(checkout.lock)
    except VendoringError as error:
        report.problems.append(str(error))
    listed = listed_names(series_bytes(checkout))
    present = {path.name for path in checkout.patches.glob("*.patch")}
    for name, count in Counter(listed).items():
        if count > 1:
            report.problems.append(f"the series lists {name} {count} times")
        if not PATCH_NAME.fullmatch(name):
            report.problems.append(f"the series lists {name!r}, which is not a name NAME.patch")
        elif name not in present:
            report.problems.append(f"the series lists {name}, which is missing")
    for name in sorted(present - set(listed)):
        report.problems.append(f"{name} is not listed in the series")
    patches = []
    for name in sorted(present):
        try:
            patches.append(parse_patch(name, (checkout.patches / name).read_bytes()))
        except VendoringError as error:
            report.problems.append(str(error))
    for patch in patches:
        report.problems += (f"{patch.name}: {text}" for text in _header_problems(checkout, patch))
    report.problems += shared_targets(patches)
    _check_size(patches, report)


def _header_problems(checkout: Checkout, patch: Patch) -> list[str]:
    fields, problems = header_problems(patch.header)
    test = fields.get("Test", "")
    if test and not test.startswith("<"):
        path, _, name = test.partition("::")
        problems += _test_problems(checkout.root / path, name)
    return problems


def _test_problems(path: Path, name: str) -> list[str]:
    """The test that a header names must exist, down to the function."""
    if not path.is_file():
        return [f"Test names {path}, which does not exist"]
    text = path.read_text(encoding="utf-8")
    # Each part of CLASS::FUNCTION[PARAMETERS], without the parameters.
    parts = [part.partition("[")[0] for part in name.split("::") if part]
    return [
        f"Test names {part}, which {path} does not define"
        for part in parts
        if not re.search(rf"^\s*(?:async def|def|class) {re.escape(part)}\b", text, re.MULTILINE)
    ]


def _check_size(patches: Sequence[Patch], report: CheckReport) -> None:
    added = sum(patch.added for patch in patches)
    removed = sum(patch.removed for patch in patches)
    report.lines.append(
        f"patches: {len(patches)}; {added} lines added, {removed} removed, {added + removed} of at "
        f"most {MAX_CHANGED_LINES}"
    )
    if added + removed > MAX_CHANGED_LINES:
        report.problems.append(
            f"the series changes {added + removed} lines, more than {MAX_CHANGED_LINES}; move "
            "logic from the patches into the package"
        )


def _report_freshness(checkout: Checkout, inputs: Inputs, report: CheckReport) -> None:
    reasons = stale_reasons(checkout, inputs)
    if reasons:
        report.lines.append(f"the copy is not fresh; make it with: {MAKE_COMMAND}")
        report.lines += (f"  {reason}" for reason in reasons)
    else:
        report.lines.append("the copy is fresh")


def _check_applied(
    checkout: Checkout, inputs: Inputs, report: CheckReport, pip_arguments: Sequence[str]
) -> None:
    """The part that needs the wheel: the series applies, and the copy in place is its result."""
    upstream = build_upstream(checkout, inputs.lock, pip_arguments)
    try:
        built = build_copy(upstream, inputs)
    except VendoringError as error:
        # What cannot be read has been reported already.
        if str(error) not in report.problems:
            report.problems.append(str(error))
        return
    report.lines.append("the series applies to the locked wheel")
    for patch in parse_patches(inputs.patches):
        report.problems += _seam_problems(patch, built)
    if not checkout.vendor.is_dir():
        return
    expected = {path: sha256(content) for path, content in built.items() if path != manifests.NAME}
    found = manifests.file_hashes(checkout.vendor)
    different = sorted(
        path for path in {*expected, *found} if expected.get(path) != found.get(path)
    )
    report.problems += (
        f"{checkout.vendor / path} is not what the lock and the series make; make it again with: "
        f"{MAKE_COMMAND}, or put an edit into its patch with refresh"
        for path in different
    )


def _seam_problems(patch: Patch, files: Mapping[str, bytes]) -> list[str]:
    """The module, function or class that a header names must be in the copy."""
    seam = read_header(patch.header)[0].get("Seam", "")
    module, _, name = seam.rpartition(".")
    if _module_file(seam) in files:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # upstream has invalid escapes
        tree = ast.parse(files.get(_module_file(module), b""))
    if any(getattr(node, "name", None) == name for node in tree.body):
        return []
    return [f"{patch.name}: Seam names {seam}, which the copy does not have"]


def _module_file(module: str) -> str:
    return f"llama_recipes/{module.replace('.', '/')}.py"

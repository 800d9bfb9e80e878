"""Python, the packages that are needed always, and those of the extras."""

import importlib.metadata
import platform
from collections.abc import Iterator

from packaging.requirements import Requirement

from llama_recipes_local import __version__
from llama_recipes_local.commands.doctor.diagnosis import Finding, State
from llama_recipes_local.extras import DISTRIBUTION, install, install_extra

_DEVELOPMENT = "dev"


def examine() -> Iterator[Finding]:
    """Compare what is installed with what this package asks for."""
    version = platform.python_version()
    yield Finding("Python", State.WORKS, f"{version}, {DISTRIBUTION} {__version__}")
    try:
        requirements = [
            Requirement(line) for line in importlib.metadata.requires(DISTRIBUTION) or []
        ]
    except importlib.metadata.PackageNotFoundError:
        text = "a copy of the source tree that is not installed: packages are not compared"
        yield Finding("packages", State.DOUBTFUL, text, "make install")
        return
    always = [each for each in requirements if each.marker is None or each.marker.evaluate()]
    yield from _always(always)
    for extra in sorted({name for each in requirements for name in _extras(each)} - {_DEVELOPMENT}):
        own = [each for each in requirements if extra in _extras(each)]
        yield _extra(extra, own)


def _always(requirements: list[Requirement]) -> Iterator[Finding]:
    """Report each package that is missing or too old, and the others in one line."""
    faults = [(each, text) for each in requirements if (text := _fault(each))]
    for requirement, text in faults:
        yield Finding(requirement.name, State.BROKEN, text, install(_asked(requirement)))
    named = ("torch", "transformers", "peft")
    versions = ", ".join(f"{name} {found}" for name in named if (found := _installed(name)))
    count = len(requirements) - len(faults)
    yield Finding("packages", State.WORKS, f"{count} of {len(requirements)} as needed: {versions}")


def _extra(extra: str, requirements: list[Requirement]) -> Finding:
    """Return what there is of an extra."""
    name = f"extra {extra}"
    faults = [text for each in requirements if (text := _fault(each))]
    if faults:
        return Finding(name, State.ABSENT, "; ".join(faults), install_extra(extra))
    found = ", ".join(f"{each.name} {_installed(each.name)}" for each in requirements)
    return Finding(name, State.WORKS, found)


def _fault(requirement: Requirement) -> str:
    """Return why a package does not do; empty if it does."""
    found = _installed(requirement.name)
    if not found:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{requirement.name} is {found}, needed is {requirement.specifier}"
    return ""


def _installed(name: str) -> str:
    """Return a package's version; empty if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _asked(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _extras(requirement: Requirement) -> set[str]:
    """Return the extras that a requirement belongs to."""
    if requirement.marker is None or requirement.marker.evaluate():
        return set()
    extras = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    return {extra for extra in extras if requirement.marker.evaluate({"extra": extra})}

"""The bill of materials of a bundle, in CycloneDX's JSON: every wheel, its hash and its licence."""

import email.parser
import zipfile
from email.message import Message
from pathlib import Path

from llama_recipes_local import __version__
from llama_recipes_local.bundling.installer import sha256
from llama_recipes_local.extras import DISTRIBUTION
from llama_recipes_local.storage.publishing import write_text


def write_bill(path: Path, wheels: list[Path]) -> None:
    """Write the bill of materials of wheels."""
    from cyclonedx.factory.license import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    bill = Bom()
    own = Component(name=DISTRIBUTION, version=__version__, type=ComponentType.APPLICATION)
    bill.metadata.component = own
    for wheel in wheels:
        about = metadata_of(wheel)
        name, version = str(about["Name"]), str(about["Version"])
        licence = _licence(about)
        part = Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=wheel.name,
            purl=PackageURL("pypi", name=name.lower().replace("_", "-"), version=version),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256(wheel))],
            licenses=[LicenseFactory().make_from_string(licence)] if licence else [],
        )
        bill.components.add(part)
        bill.register_dependency(own, [part])
    write_text(path, JsonV1Dot6(bill).output_as_string(indent=2) + "\n")


def _licence(about: Message) -> str:
    """Return the licence in a wheel's metadata; older ones have a classifier or a text instead."""
    text = str(about["License"] or "").strip().removeprefix("UNKNOWN")
    classifiers = map(str, about.get_all("Classifier", []))
    found = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License ::")]
    names = [about["License-Expression"], "" if "\n" in text else text, ", ".join(found), text]
    return next((str(name).split("\n")[0] for name in names if name), "")


def metadata_of(wheel: Path) -> Message:
    """Return a wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (
            each
            for each in archive.namelist()
            if each.endswith(".dist-info/METADATA") and each.count("/") == 1
        )
        return email.parser.Parser().parsestr(archive.read(name).decode("utf-8", "replace"))

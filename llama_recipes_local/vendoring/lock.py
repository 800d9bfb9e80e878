"""The lock: the one place that names upstream's release and the hash of its wheel."""

import re
from dataclasses import dataclass
from pathlib import Path

from llama_recipes_local.vendoring.errors import VendoringError

_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.!+]+) "
    r"--hash=sha256:(?P<sha256>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class Lock:
    """Upstream's release, pinned.

    Attributes:
        line: the requirement as pip reads it.
        name: the distribution's name.
        version: the release.
        sha256: hash of the wheel, in hexadecimal.
    """

    line: str
    name: str
    version: str
    sha256: str

    @property
    def dist_info(self) -> str:
        """Name of the folder in the wheel that holds its metadata."""
        return f"{re.sub('[-_.]+', '_', self.name)}-{self.version}.dist-info"


def read_lock(path: Path) -> Lock:
    """Read the lock: a file in pip's requirements format with one pinned requirement.

    Raises:
        VendoringError: if it does not hold one line ``NAME==VERSION --hash=sha256:HASH``.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    requirements = [line for line in lines if line and not line.startswith("#")]
    match = _LINE.fullmatch(requirements[0]) if len(requirements) == 1 else None
    if match is None:
        raise VendoringError(
            f"{path} must hold one requirement, as 'NAME==VERSION --hash=sha256:' and 64 "
            f"hexadecimal digits, but holds: {requirements!r}; take it from the repository again"
        )
    return Lock(line=match[0], **match.groupdict())

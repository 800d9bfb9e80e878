"""The header of a patch: DEP-3's fields, and three of this project's."""

import re
from datetime import date

_TEMPLATE = """\
Description: <what the seam does, and why a subclass or wrapper would not do>
Author: <name>
Forwarded: not-needed
Last-Update: {today}
Seam: <module.function>
Test: <tests/FILE.py::NAME>
Drop-When: <what makes this patch unnecessary>

"""

FIELDS = (
    "Description",
    "Author",
    "Forwarded",
    "Last-Update",
    "Seam",
    "Test",
    "Drop-When",
)

_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9-]*):(?:[ \t]+(.*))?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def template() -> bytes:
    """Return a header to be filled in; the lint refuses it as it is."""
    return _TEMPLATE.format(today=date.today().isoformat()).encode()


def read_header(header: bytes) -> tuple[dict[str, str], list[str]]:
    """Read the fields of a header.

    A line that starts with a space continues the field above it. One empty line ends the header.

    Returns:
        The fields by name, and problems with lines that are not fields.
    """
    fields: dict[str, str] = {}
    problems = []
    current = ""
    for line in header.decode(errors="replace").removesuffix("\n").split("\n"):
        match = _FIELD.fullmatch(line)
        if match:
            current = match[1]
            if current in fields:
                problems.append(f"the header has {current} twice")
            fields[current] = (match[2] or "").strip()
        elif current and line.startswith(" ") and line.strip():
            fields[current] += " " + line.strip()
        elif line.strip():
            problems.append(f"the header's line {line!r} is not a field 'Name: text'")
    return fields, problems


def header_problems(header: bytes) -> tuple[dict[str, str], list[str]]:
    """Read a header and check all that depends on the header alone.

    Returns:
        The fields by name, and the problems.
    """
    fields, problems = read_header(header)
    for name in FIELDS:
        value = fields.get(name, "")
        if not value:
            problems.append(f"the header has no {name}")
        elif value.startswith("<") and value.endswith(">"):
            problems.append(f"the header's {name} is still the template's: {value}")
    if fields.get("Forwarded") not in (None, "", "not-needed"):
        problems.append(f"Forwarded must be not-needed, not {fields['Forwarded']!r}")
    if fields.get("Last-Update") and not _is_date(fields["Last-Update"]):
        problems.append(f"Last-Update must be a date YYYY-MM-DD, not {fields['Last-Update']!r}")
    return fields, problems


def _is_date(text: str) -> bool:
    # Newer interpreters read more ISO forms than older ones: accept one.
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True

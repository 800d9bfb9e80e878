"""``docs/extending.md`` shows code that is there: in the package, or run by the test it names."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PAGE = PROJECT / "docs" / "extending.md"
EXAMPLES = re.findall(
    r"^<!-- (\S+\.py) -->\n```python\n(.*?)```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
)


def test_every_example_names_its_file() -> None:
    assert len(EXAMPLES) == PAGE.read_text("utf-8").count("```python") >= 5


@pytest.mark.parametrize(("file", "code"), EXAMPLES, ids=[file for file, _ in EXAMPLES])
def test_an_example_is_in_its_file_line_by_line(file: str, code: str) -> None:
    text = (PROJECT / file).read_text("utf-8").replace("\\\\n", "\\n").replace("'", '"')
    place = 0
    for line in filter(None, map(str.strip, code.replace("'", '"').splitlines())):
        found = text.find(line, place)
        assert found >= 0, f"{file} does not have, at this point: {line}"
        place = found + len(line)

"""The measures of source code, on a package of which they can be counted by hand."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
FILES = {
    "__init__.py": '"""A package."""\n',
    "one.py": '"""One."""\nfrom typing import Any\nfrom package.two import other\n\n\n'
    "def first(a: Any, b: int) -> None:  # counts\n    other(a)\n",
    "two.py": "import typing\n\n\ndef other(*args: typing.Any, c: int = 0) -> None:\n"
    '    """Import it late."""\n    from . import one\n\n    del one\n',
    "tests/test_one.py": "assert True\n",
}


def test_a_package_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import source_code

    for name, text in FILES.items():
        path = tmp_path / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    row = dict(zip(source_code.HEADER, source_code.measure(tmp_path / "package"), strict=True))
    assert list(row.values()) == [
        "package",
        "3",  # not tests/
        "5",  # 16 lines
        "7",
        "4 / 7 / 5",  # of 2 and 5 lines; quantiles go beyond two values
        "0.0%",
        "50 / 0 / 67%",
        "6.2",  # one comment
        "33.3 / 25.0%",  # typing.Any is not written Any
        "2",
        "2",
        "1",
    ]
    sys.modules.pop("source_code")

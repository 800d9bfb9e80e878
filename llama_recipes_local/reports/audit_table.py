"""The table of a run's data, from ``data_audit.json``: what was read, how rows begin and end."""

from typing import Any

from llama_recipes_local.reports.html_page import table
from llama_recipes_local.reports.line_chart import number
from llama_recipes_local.reports.run_files import plain_number

_COUNTS = {
    "records": "records read",
    "blank": "blank, skipped",
    "bad": "cannot be used, skipped",
    "without_label": "without a label, skipped",
    "truncated": "truncated",
    "divided": "split into several rows",
}
_ROWS = {
    "rows": "rows",
    "repeated": "repeated rows",
    "tokens": "tokens",
    "label_tokens": "label tokens",
    "longest": "longest row, tokens",
}
_ENDINGS = {"begin_doubled": "begin token doubled", "begin_missing": "begin token missing"}
_ALWAYS = {"records", *_ROWS} - {"repeated"}
_STOPS = "rows that end in a token that generation stops at"
_SHARED = "validation_rows_in_training"
_MIXTURE = "mixture"
_OF_SOURCE = {
    "weight": "weight",
    "share": "share of the label tokens",
    "label_tokens": "label tokens",
    "rows": "rows of an epoch",
    "times": "passes in an epoch",
    "validation_rows": "rows for validation",
}


def audit_table(name: str, audit: dict[str, Any]) -> str:
    """Return the table of a run's data; empty if there is none."""
    parts = {
        part: found for part, found in audit.items() if isinstance(found, dict) and part != _MIXTURE
    }
    each = list(parts.values())
    rows: dict[str, list[str]] = {}
    for names, owners in (
        (_COUNTS, [_inside(part, "counts") for part in each]),
        (_ROWS, each),
        (_ENDINGS, [_inside(part, "endings") for part in each]),
    ):
        for key, title in names.items():
            values = [_value(owner.get(key)) for owner in owners]
            if key in _ALWAYS or any(value not in ("", "0") for value in values):
                rows[title] = values
    if any(stops := [_stopping(part) for part in each]):
        rows[_STOPS] = stops
    rows |= _notes(each)
    if (shared := _value(audit.get(_SHARED))) not in ("", "0") and parts:
        rows["validation rows that are training rows too"] = [*[""] * (len(parts) - 1), shared]
    return table(f"Data of {name}", ["", *parts], rows) if parts else ""


def mixture_table(name: str, audit: dict[str, Any]) -> str:
    """Return the table of a mixture's sources in an epoch; empty for a run on one data set."""
    sources = _inside(audit, _MIXTURE)
    rows = {
        source: [_value(_inside(sources, source).get(key)) for key in _OF_SOURCE]
        for source in sources
    }
    return table(f"Mixture of {name}", ["", *_OF_SOURCE.values()], rows)


def _notes(parts: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return how many records are not as they were read, by what was left out or added."""
    noted = [_inside(_inside(part, "counts"), "notes") for part in parts]
    names = dict.fromkeys(name for notes in noted for name in notes)
    return {name: [_value(notes.get(name)) for notes in noted] for name in names}


def _inside(part: dict[str, Any], name: str) -> dict[str, Any]:
    found = part.get(name)
    return found if isinstance(found, dict) else {}


def _stopping(part: dict[str, Any]) -> str:
    stopping = plain_number(_inside(part, "endings").get("stopping"))
    rows = plain_number(part.get("rows"))
    return f"{stopping / rows:.1%}" if stopping is not None and rows else ""


def _value(value: object) -> str:
    value = plain_number(value)
    if value is None:
        return ""
    return number(value, 15 if float(value).is_integer() else 4)

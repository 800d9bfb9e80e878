"""The audit is printed and saved with each number in its place."""

import json
from pathlib import Path

from llama_recipes_local.data.audit import (
    Counts,
    SplitAudit,
    audit_split,
    save_audit,
    shared_rows,
    table,
)
from llama_recipes_local.data.token_rows import TokenRows

TRAIN = SplitAudit(Counts(1001, 2, 3, 4, 5, 6), 6, 7_000_000, 8, 9, 10)
VALIDATION = SplitAudit(Counts(11, 12, 13, 14, 15, 16), 16, 17, 18, 19, 20)
AUDITS = {"train": TRAIN, "validation": VALIDATION}


def rows(*ids: list[int]) -> TokenRows:
    return TokenRows.from_samples({"input_ids": each, "labels": each} for each in ids)


def test_the_table_has_a_column_a_split():
    lines = [line.rsplit(maxsplit=2) for line in table(AUDITS, 21).splitlines()]
    assert [[title.strip(), *numbers] for title, *numbers in lines[:-1]] == [
        ["data", "train", "validation"],
        ["records read", "1,001", "11"],
        ["blank, skipped", "2", "12"],
        ["cannot be used, skipped", "6", "16"],
        ["without a label, skipped", "5", "15"],
        ["truncated", "3", "13"],
        ["split into several rows", "4", "14"],
        ["rows", "6", "16"],
        ["repeated", "10", "20"],
        ["tokens", "7,000,000", "17"],
        ["label tokens", "8", "18"],
        ["longest row, tokens", "9", "19"],
    ]
    assert table(AUDITS, 21).endswith("  21")


def test_what_became_of_no_record_is_left_out():
    nothing = SplitAudit(Counts(), 0, 0, 0, 0, 0)
    clean = {"train": SplitAudit(Counts(3, truncated=1), 3, 30, 20, 10, 0), "validation": nothing}
    titles = [line.rsplit(maxsplit=2)[0].strip() for line in table(clean, 0).splitlines()]
    kept = ["data", "records read", "truncated", "rows"]
    assert titles == [*kept, "tokens", "label tokens", "longest row, tokens"]


def test_it_is_saved_as_json(tmp_path: Path):
    save_audit(AUDITS, 21, tmp_path / "audit.json")
    saved = json.loads((tmp_path / "audit.json").read_text("utf-8"))
    assert saved["validation_rows_in_training"] == 21
    assert saved["train"]["counts"] == {
        "records": 1001,
        "blank": 2,
        "truncated": 3,
        "divided": 4,
        "without_label": 5,
        "bad": 6,
        "notes": {},
    }
    assert saved["validation"]["label_tokens"] == 18


def test_rows_are_audited():
    audit = audit_split(rows([1, 2], [1, 2, 3], [1, 2], [1, 2]), Counts(records=4))
    assert audit == SplitAudit(Counts(records=4), 4, 9, 5, 3, 2)


def test_validation_rows_that_are_training_rows_are_counted():
    assert shared_rows(rows([1, 2], [3, 4], [5, 6]), rows([3, 4], [3, 4], [4, 3])) == 2

"""Encodings other than UTF-8: guessed for the message, and read where they are named."""
# letters that only look like others are what this is about
# ruff: noqa: RUF001

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llama_recipes_local.configs.datasets import local_dataset
from llama_recipes_local.datasets import local
from llama_recipes_local.errors import UsageError
from llama_recipes_local.records.any_format import records
from llama_recipes_local.records.encodings import guess
from llama_recipes_local.records.source import Source

TEXTS = [
    ("gb18030", "法国的首都是哪里？", "巴黎是法国的首都。"),
    ("big5", "法國的首都在哪裡？", "巴黎是法國的首都。"),
    ("cp949", "프랑스의 수도는 어디입니까?", "파리입니다."),
    ("cp932", "フランスの首都はどこですか", "パリです。"),
    ("euc_jp", "フランスの首都はどこですか", "パリです。"),
    ("cp1251", "Какой город столица Франции?", "Париж, конечно"),
    ("koi8_r", "Какой город столица Франции?", "Париж, конечно"),
    ("cp1252", "Was heißt „Straße“ auf Französisch?", "“Rue” – ça coûte 3 €"),
    ("cp1252", "fiancée", "Élève déjà naïve à Noël"),
    ("cp1252", "it’s", "don’t"),
    ("cp1250", "Pchnąć w tę łódź jeża", "żółć"),
    ("utf-16", "What is it?", "A sheet of Excel"),
    ("utf-32", "What is it?", "Four bytes a letter"),
]


def csv_text(prompt: str, completion: str) -> str:
    return f'prompt,completion\n"{prompt}","{completion}"\n'


@pytest.mark.parametrize(("encoding", "prompt", "completion"), TEXTS)
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json"])
def test_an_encoding_is_named_and_read(
    name: str, encoding: str, prompt: str, completion: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    row = {"prompt": prompt, "completion": completion}
    line = json.dumps(row, ensure_ascii=False)
    texts = {"rows.csv": csv_text(prompt, completion), "rows.jsonl": f"{line}\n"}
    path.write_bytes(texts.get(name, f"[{line}]").encode(encoding))
    config = local_dataset(data_path=str(path), validation_path=str(path))
    with pytest.raises(UsageError) as refusal:
        local.find_part(config, training=True)
    (problem,) = refusal.value.problems
    assert problem.fix.startswith(f"--local_dataset.encoding={encoding}, or ")
    part = local.find_part(replace(config, encoding=encoding), training=True)
    assert [values for _, values in part.records()] == [row]
    assert ", read as " in part.which  # so that the cache knows


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(csv_text("a b c", "d e f").encode(encoding))
    with pytest.raises(UsageError, match=f"is in {encoding}, not UTF-8"):
        list(records(path))
    assert len(list(records(Source(path, encoding=encoding)))) == 1


@pytest.mark.parametrize("sample", [b"", b"plain", bytes(range(128, 256)) * 3])
def test_no_encoding_is_guessed_from_nothing(sample: bytes) -> None:
    assert guess(sample) == ""


def test_one_wrong_byte_of_utf_8_is_no_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(csv_text("Fünf Größen", "für schöne").encode() + b'"\xff","x"\n')
    with pytest.raises(UsageError) as refusal:
        list(records(path))
    assert "iconv -f ENCODING" in str(refusal.value)


@pytest.mark.parametrize("encoding", ["cp1252", "gb18030", "utf-16"])
def test_utf_8_is_not_read_as_what_it_is_not(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(csv_text("Größe", "für"), "utf-8")
    with pytest.raises(UsageError, match=f"is in utf-8, not {encoding}"):
        list(records(Source(path, encoding=encoding)))


def test_a_named_encoding_that_does_not_fit_is_reported_with_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(csv_text("été", "déjà vu").encode("cp1252"))
    with pytest.raises(UsageError, match=r"of .*rows\.csv is not gb18030"):
        list(records(Source(path, encoding="gb18030")))


def test_an_unknown_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(csv_text("a", "b"))
    for name in ("klingon", "base64"):
        with pytest.raises(UsageError, match=f"encoding={name} is not known"):
            local.find_part(local_dataset(data_path=str(path), encoding=name), training=True)


def test_letters_on_the_border_of_blocks_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": "a" * (number % 3) + "法国" * 9_000} for number in range(20)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(text.encode("gb18030"))
    assert [values for _, values in records(Source(path, encoding="gb18030"))] == rows

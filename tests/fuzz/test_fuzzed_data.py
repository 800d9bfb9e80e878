"""Broken data files: refused in words, or read as Python's own readers read them."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import py7zr
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from helpers.fuzzing import Case, SilentError, damaged, damaged_json, fuzz, hostile, json_text
from pyarrow import parquet

from llama_recipes_local.datasets.base import PARTS, find_split
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.records import seven_zip
from llama_recipes_local.records.any_format import records

pytestmark = pytest.mark.slow


def packed_by_arrow(codec: str, data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: packed_by_arrow("zstd", data),
    ".lz4": lambda data: packed_by_arrow("lz4", data),
}
LETTERS = string.ascii_letters + " \t\"',;\\é中\U0001f600\u2028\x0b"


def text(rng: random.Random) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randrange(12)))


def rows_of_text(rng: random.Random) -> list[dict[str, str]]:
    names = ["input", "target", text(rng).strip() or "c"][: rng.choice([2, 3])]
    return [{name: text(rng) for name in names} for _ in range(rng.randrange(1, 6))]


def table(rng: random.Random, delimiter: str) -> bytes:
    rows = rows_of_text(rng)
    file = io.StringIO(newline="")
    ends = rng.choice(["\n", "\r\n"])
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator=ends)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def json_rows(rng: random.Random) -> list[Any]:
    if rng.random() < 0.5:
        return list(rows_of_text(rng))
    return [{"input": hostile(rng), "target": hostile(rng)} for _ in range(rng.randrange(1, 4))]


def json_lines(rng: random.Random) -> bytes:
    return b"\n".join(json_text(rng, row) for row in json_rows(rng))


def parquet_file(rng: random.Random) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows_of_text(rng)), file)
    return file.getvalue()


MAKERS: dict[str, Callable[[random.Random], bytes]] = {
    ".csv": lambda rng: table(rng, ","),
    ".tsv": lambda rng: table(rng, "\t"),
    ".jsonl": json_lines,
    ".json": lambda rng: json_text(rng, json_rows(rng)),
    ".parquet": parquet_file,
    ".txt": lambda rng: "\n\n".join(text(rng) for _ in range(4)).encode(),
}


def expected(form: str, data: bytes) -> list[Any] | None:
    """Return the rows as Python's own readers see them; None where that is not decided."""
    if form == ".jsonl":
        return [json.loads(line) for line in data.decode("utf-8-sig").split("\n") if line.strip()]
    if form == ".json":
        return list(json.loads(data.decode("utf-8-sig")))
    if form in (".csv", ".tsv") and b"\0" not in data and b"\r" not in data.replace(b"\r\n", b""):
        lines = io.StringIO(data.decode("utf-8-sig"), newline="")
        return list(csv.reader(lines, delimiter="," if form == ".csv" else "\t"))
    return None


def made_file(case: Case, folder: Path) -> tuple[Path, str, bytes]:
    """Write a data file, sound or broken; return its path, form, and what is in it unpacked."""
    rng = case.random
    form = rng.choice(list(MAKERS))
    packing = "" if form == ".parquet" else rng.choice(list(PACKED))
    content = MAKERS[form](rng)
    if rng.random() < 0.6:
        content = damaged(rng, content)
    data = PACKED[packing](content)
    if packing and rng.random() < 0.3:
        data = damaged(rng, data)
        content = b""
    path = folder / f"rows{form}{packing}"
    path.write_bytes(data)
    case.given += [path.name, data]
    return path, form, content


def test_broken_data_files(tmp_path: Path) -> None:
    def attack(case: Case) -> None:
        path, form, content = made_file(case, tmp_path)
        found = [record for _, record in records(path)]
        path.unlink()
        if not content:
            return
        try:
            wanted = expected(form, content)
        except (ValueError, RecursionError, csv.Error, TypeError):
            return  # this reader may read what Python's refuses: a text with a mark, for example
        if wanted is None or not wanted:
            return
        if form in (".jsonl", ".json"):
            same = json.dumps(found) == json.dumps(wanted)
        else:
            rows = [row for row in wanted[1:] if row]
            same = len(found) == len(rows) or content.count(b"sep=") > 0
        if not same:
            raise SilentError(f"read as {found!r:.500}, and not {wanted!r:.500}")

    assert fuzz("data files", 3600, attack)["used"] > 500


def test_broken_archives(tmp_path: Path) -> None:
    """7z archives of rows: their headers, hashes and contents broken."""
    members, packed = {"a.json": b'[{"n": 1}]', "b/c.json": b'[{"n": 2}]'}, []
    for filters in ([{"id": py7zr.FILTER_LZMA2, "preset": 1}], [{"id": py7zr.FILTER_COPY}], None):
        file = io.BytesIO()
        with py7zr.SevenZipFile(file, "w", filters=filters) as archive:
            for name, content in members.items():
                archive.writestr(content, name)
        packed.append(file.getvalue())
    path = tmp_path / "rows.7z"

    def attack(case: Case) -> None:
        sound = case.random.choice(packed)
        data = damaged(case.random, sound) if case.random.random() < 0.95 else sound
        path.write_bytes(data)
        case.given.append(data)
        for name in seven_zip.members(path):
            read = seven_zip.read_member(path, name)
            if name not in members or read != members[name]:
                raise SilentError(f"{name} is read as {read!r:.500}")

    assert fuzz("7z archives", 300, attack)["used"] > 10


def test_rows_of_every_layout(tmp_path: Path, tiny_model: Path) -> None:
    from llama_recipes_local.models import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    dataset = DATASETS["local_dataset"]
    turn = {"role": "user", "content": "a"}
    answer: dict[str, Any] = {"role": "assistant", "content": "b"}
    calling = answer | {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
    layouts: list[dict[str, Any]] = [
        {"instruction": "a", "input": "b", "output": "c"},
        {"prompt": "a", "completion": "b"},
        {"messages": [turn, answer, turn, {"role": "assistant", "content": "d"}]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"prompt": [turn], "completion": [answer]},
        {"messages": [turn, calling, {"role": "tool", "content": "1"}, answer]},
        {"text": "a"},
    ]

    def attack(case: Case) -> None:
        rng = case.random
        layout = rng.choice(layouts)
        lines = [json_text(rng, layout)] * 3
        lines.insert(rng.randrange(len(lines) + 1), damaged_json(rng, layout))
        path = tmp_path / "rows.jsonl"
        path.write_bytes(b"\n".join(lines) + b"\n")
        case.given.append(lines)
        config = dataset.config()
        config.data_path = str(path)
        config.template = "auto" if "text" in layout else rng.choice(["llama2", "guanaco"])
        for part in PARTS:
            split = find_split(dataset, config, part, tokenizer)
            assert split is not None
            for record in split.records():
                split.formatter(record, tokenizer)

    fuzz("layouts of rows", 500, attack)

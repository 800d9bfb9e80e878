"""7z archives are read into memory; one that could do harm or is corrupt is refused.

The archives are made by py7zr, whose own writer refuses bad names: they are put in past it.
"""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import py7zr
import pytest

from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.records import seven_zip
from llama_recipes_local.records.any_format import records
from llama_recipes_local.records.seven_zip import members, read_member
from llama_recipes_local.records.source import Source

pytestmark = pytest.mark.slow

CONTENTS = {f"{name}.json": json.dumps([{"a": name}]) for name in ("train", "val", "test")}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "corpus.7z"
    path.parent.mkdir()
    write(path, CONTENTS | {"licence.txt": "of no use here"})
    return path


def write(path: Path, contents: dict[str, str], password: str | None = None) -> None:
    with py7zr.SevenZipFile(path, "w", password=password) as opened:
        for name, text in contents.items():
            opened.writestr(text, name)


def rename(path: Path, old: str, new: str) -> None:
    """Write the archive again, with another name for a member in its header."""
    with py7zr.SevenZipFile(path, "w") as opened:
        for name, text in CONTENTS.items():
            opened.writestr(text, name)
        for file in opened.header.files_info.files:
            if file["filename"] == old:
                file["filename"] = new


def everything_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_members_are_read_into_memory(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    before = everything_below(tmp_path)
    assert members(archive) == [*CONTENTS, "licence.txt"]
    for name, text in CONTENTS.items():
        assert read_member(archive, name) == text.encode()
    assert everything_below(tmp_path) == before


def test_records_of_a_member(archive: Path) -> None:
    (record,) = records(Source(archive, "val.json"))
    assert record == (f"item 1 of val.json in {archive}", {"a": "val"})


def test_a_member_that_is_not_utf_8(archive: Path) -> None:
    with py7zr.SevenZipFile(archive, "w") as opened:
        opened.writestr(b'[{"a": "\xff"}]', "train.json")
    with pytest.raises(UsageError) as caught:
        list(records(Source(archive, "train.json")))
    assert f"byte 8 when unpacked of train.json in {archive}, in line 1" in str(caught.value)


def to_a_link(path: Path) -> None:
    (path.parent / "link").symlink_to("/etc/passwd")
    with py7zr.SevenZipFile(path, "w") as opened:
        opened.write(path.parent / "link", "train.json")


def to_another_kind(path: Path, kind: int) -> None:
    with py7zr.SevenZipFile(path, "w") as opened:
        opened.writestr("../../etc/passwd", "train.json")
        (file,) = opened.header.files_info.files
        file["attributes"] = 0x8000 | (kind | 0o600) << 16


def to_a_link_out(path: Path) -> None:
    to_another_kind(path, stat.S_IFLNK)


def to_a_pipe(path: Path) -> None:
    to_another_kind(path, stat.S_IFIFO)


def to_a_junction(path: Path) -> None:
    with py7zr.SevenZipFile(path, "w") as opened:
        opened.writestr("elsewhere", "train.json")
        opened.writestr("[]", "val.json")
        file = opened.header.files_info.files[0]
        file["attributes"] = stat.FILE_ATTRIBUTE_REPARSE_POINT | stat.FILE_ATTRIBUTE_DIRECTORY


def to_a_repeated_name(path: Path) -> None:
    rename(path, "val.json", "train.json")


def to_an_empty_archive(path: Path) -> None:
    write(path, {})


def to_an_archive_of_a_folder(path: Path) -> None:
    (path.parent / "folder").mkdir()
    with py7zr.SevenZipFile(path, "w") as opened:
        opened.write(path.parent / "folder", "folder")


def to_nothing(path: Path) -> None:
    path.write_bytes(b"")


def to_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def to_other_bytes(path: Path) -> None:
    path.write_bytes(os.urandom(4096))


def to_a_changed_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF
    path.write_bytes(content)


def to_a_locked_one(path: Path) -> None:
    write(path, CONTENTS, password="secret")


def to_a_locked_header(path: Path) -> None:
    with py7zr.SevenZipFile(path, "w", password="secret", header_encryption=True) as opened:
        opened.writestr("[]", "train.json")


HARM = "{} is not read"
DAMAGED = "{} cannot be read"
SPOILT: list[tuple[Callable[[Path], None], str, str]] = [
    (to_a_link, HARM, "train.json is a link or another special file"),
    (to_a_link_out, HARM, "train.json is a link or another special file"),
    (to_a_pipe, HARM, "train.json is a link or another special file"),
    (to_a_junction, HARM, "train.json is a link or another special file"),
    (to_a_repeated_name, HARM, "train.json is in it more than once"),
    (to_an_empty_archive, "{} is empty", "the archive holds no file"),
    (to_an_archive_of_a_folder, "{} is empty", "the archive holds no file"),
    (to_nothing, DAMAGED, ""),
    (to_half, DAMAGED, ""),
    (to_other_bytes, DAMAGED, "not a 7z file"),
    (to_a_changed_byte, DAMAGED, ""),
    (to_a_locked_one, "{} has a password", "it cannot be read without it"),
    (to_a_locked_header, "{} has a password", "it cannot be read without it"),
]


def refused(path: Path) -> Problem:
    """The one problem with the archive; nothing has been written when it is reported."""
    before = everything_below(path.parent.parent)
    with pytest.raises(UsageError) as caught:
        read_member(path, "train.json")
    assert everything_below(path.parent.parent) == before
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(("spoil", "what", "why"), SPOILT)
def test_an_archive_that_is_refused(
    spoil: Callable[[Path], None], what: str, why: str, archive: Path
) -> None:
    spoil(archive)
    problem = refused(archive)
    assert problem.what == what.format(archive)
    assert why in problem.why and problem.why
    assert problem.fix


@pytest.mark.parametrize(
    "name",
    ["../val.json", "a/../../val.json", "..", "/etc/val.json", "C:/val.json", "//host/val.json"],
)
def test_a_path_that_leads_outside(name: str, archive: Path) -> None:
    rename(archive, "val.json", name)
    assert name in members_unchecked(archive)
    problem = refused(archive)
    assert problem.what == f"{archive} is not read"
    assert problem.why == f"{name} leads outside the folder it is unpacked in"


def members_unchecked(path: Path) -> list[str]:
    with py7zr.SevenZipFile(path, "r") as opened:
        return opened.getnames()


def test_an_archive_that_claims_too_much(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(archive, {"train.json": "[]", "other": " " * 2_000_000})
    assert archive.stat().st_size < 10_000
    monkeypatch.setattr(seven_zip, "LARGEST_CONTENT", 1_999_999)
    problem = refused(archive)
    assert problem.what == f"{archive} unpacks to more than 1999999 bytes"
    assert problem.why == "its header says 2000002 bytes"


def test_a_member_that_is_more_than_its_header_says(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(archive, {"train.json": " " * 2_000_000})
    monkeypatch.setattr(seven_zip, "LARGEST_CONTENT", 1_999_999)
    monkeypatch.setattr(seven_zip, "_check", lambda path, opened: None)
    problem = refused(archive)
    assert problem.what == f"{archive} unpacks to more than 1999999 bytes"
    assert problem.why == "train.json is longer than that"


def test_a_missing_member_is_reported(archive: Path) -> None:
    write(archive, {"val.json": "[]"})
    problem = refused(archive)
    assert problem.what == f"{archive} holds no train.json"
    assert problem.why == "it holds val.json"


@pytest.mark.parametrize("lock", [to_a_locked_one, to_a_locked_header])
def test_the_names_in_a_locked_archive_are_not_reported(
    lock: Callable[[Path], None], archive: Path
) -> None:
    lock(archive)
    with pytest.raises(UsageError, match="has a password"):
        members(archive)

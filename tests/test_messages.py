"""Phrases that many messages share."""

from pathlib import Path

import pytest

from llama_recipes_local.messages import describe_folder, join_names, missing_path, nearest


def test_the_first_ten_names_are_shown() -> None:
    assert join_names([]) == "nothing"
    assert join_names(map(str, range(10))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert join_names(map(str, range(12))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


def test_a_long_list_of_names_is_cut(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"file{number:02d}").touch()
    assert describe_folder(tmp_path).endswith("file08, file09 and 2 more")


def test_a_missing_path_is_reported_with_what_its_folder_holds(tmp_path: Path) -> None:
    for name in ("part-10.csv", "part-2.csv"):
        (tmp_path / name).touch()
    problem = missing_path(tmp_path / "part-3.csv", "name another")
    assert problem.what == f"{tmp_path / 'part-3.csv'} does not exist"
    assert problem.why == f"{tmp_path} holds part-2.csv, part-10.csv"
    (tmp_path / "link.csv").symlink_to("nowhere.csv")
    assert missing_path(tmp_path / "link.csv", "").why == "it is a link to nowhere.csv"
    deeper = missing_path(tmp_path / "no" / "part-3.csv", "name another")
    assert deeper.why == f"neither does {tmp_path / 'no'}"


def test_a_path_of_the_other_kind_is_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert missing_path(tmp_path / "file", "").what == f"{tmp_path / 'file'} is a file"
    assert missing_path(tmp_path, "").why == "a file is needed"
    assert describe_folder(tmp_path / "file") == f"{tmp_path / 'file'} is a file"
    monkeypatch.chdir(tmp_path)
    assert missing_path(Path("nowhere"), "").why == f"{tmp_path} holds file"


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ("help_me", ["model_name", "help"]),
        ("learnin_rate", ["sharding_strategy"]),
        ("lr", ["raw", "r"]),
        ("3bit", ["8bit"]),
        ("verbose2", ["verbose"]),
        ("saves", ["seed", "save_steps"]),
    ],
)
def test_a_far_fetched_name_is_not_suggested(given: str, known: list[str]) -> None:
    assert nearest(given, known) == ""


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ("bf16", "pure_bf16"),
        ("enable_fdsp", "enable_fsdp"),
        ("sede", "seed"),
        ("sed", "seed"),
        ("Batch", "batch"),
    ],
)
def test_a_typing_error_and_a_part_of_the_name_are_understood(given: str, known: str) -> None:
    assert nearest(given, ["dropout", known, "raw"]) == known

"""Files are found below a folder, and described by a few of their names."""

from pathlib import Path

from llama_recipes_local.messages import describe_folder, join_names
from llama_recipes_local.records.finding import describe_files, files_below


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    for folder in (data, other):
        folder.mkdir()
    (other / "b.csv").touch()
    (data / "a.csv").touch()
    (data / "linked").symlink_to(other)
    (other / "back").symlink_to(data)
    (data / "gone.csv").symlink_to(tmp_path / "nowhere")
    found = [path.relative_to(data).as_posix() for path in files_below(data)]
    assert found == ["a.csv", "linked/b.csv"]
    assert describe_files(data) == "it holds a.csv, linked/b.csv"


def test_the_first_ten_names_are_shown() -> None:
    assert join_names([]) == "nothing"
    assert join_names(map(str, range(10))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert join_names(map(str, range(12))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


def test_a_long_list_of_names_is_cut(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"file{number:02d}").touch()
    assert describe_folder(tmp_path).endswith("file08, file09 and 2 more")

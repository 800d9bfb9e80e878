"""Files are found below a folder."""

from pathlib import Path

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

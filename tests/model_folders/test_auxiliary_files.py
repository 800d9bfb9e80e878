"""What is copied with a model, which may be published: nothing of elsewhere behind a link."""

from pathlib import Path

import pytest

from llama_recipes_local.model_folders.auxiliary_files import copy_auxiliary_files


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "LICENSE"):
        (folder / name).write_text(name)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("secret")
    return folder


def copied(source: Path, tmp_path: Path) -> dict[str, str]:
    out = tmp_path / "out"
    out.mkdir()
    copy_auxiliary_files(source, out, source)
    return {path.name: path.read_text() for path in out.iterdir()}


@pytest.mark.parametrize("name", ["LICENSE-x", "NOTICE", "merges.txt", "chat_template.jinja"])
def test_a_link_to_elsewhere_is_not_followed(
    name: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / name).symlink_to("../private/key")
    assert copied(source, tmp_path) == {"tokenizer.json": "tokenizer.json", "LICENSE": "LICENSE"}
    said = capsys.readouterr().out
    assert f"{source / name} is not copied: it links to {tmp_path / 'private' / 'key'}" in said


def test_links_within_a_folder_and_to_a_whole_other_are_followed(
    source: Path, tmp_path: Path
) -> None:
    (source / "LICENSE-link").symlink_to("LICENSE")
    farm = tmp_path / "farm"
    farm.mkdir()
    for path in source.iterdir():
        (farm / path.name).symlink_to(path)
    assert set(copied(farm, tmp_path)) == {"tokenizer.json", "LICENSE", "LICENSE-link"}


def test_the_hubs_cache_is_followed(source: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--a--b"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "abc").write_text("licence")
    (snapshot / "LICENSE").symlink_to("../../blobs/abc")
    assert copied(snapshot, tmp_path) == {"LICENSE": "licence"}


def test_a_tokenizers_further_templates_are_copied_and_replaced(
    source: Path, tmp_path: Path
) -> None:
    (source / "chat_template.jinja").write_text("{{ messages }}")
    templates = source / "additional_chat_templates"
    templates.mkdir()
    (templates / "tool_use.jinja").write_text("{{ tools }}")
    (templates / "private.jinja").symlink_to("../../private/key")
    (templates / "notes.txt").write_text("none")
    out = tmp_path / "out"
    (out / templates.name).mkdir(parents=True)
    (out / templates.name / "rag.jinja").write_text("of another tokenizer")
    copy_auxiliary_files(source, out, source)
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    copies = {"tokenizer.json", "LICENSE", "chat_template.jinja"}
    assert found == copies | {"additional_chat_templates/tool_use.jinja"}

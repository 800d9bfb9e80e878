"""Disk space for a new model's folder."""

import shutil
from pathlib import Path

import pytest

from llama_recipes_local.model_folders.output_folder import check_free_space


@pytest.mark.parametrize(("usage", "refused"), [((9, 4, 5), True), ((0, 0, 0), False)])
def test_only_a_known_lack_of_space_is_refused(
    usage: tuple[int, int, int],
    refused: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(*usage))
    assert bool(check_free_space(tmp_path, 10)) is refused

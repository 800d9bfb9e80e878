"""Retention: which checkpoints are kept: the newest, and the best."""

from pathlib import Path

import pytest

from llama_recipes_local.checkpoints import retention, selection, verifying
from llama_recipes_local.checkpoints.layout import MANIFEST, Manifest, folder_of, step_of


def checkpoints(
    output: Path, losses: dict[int, float | None], tokens: dict[int, int] | None = None
) -> None:
    for step, loss in losses.items():
        folder = folder_of(output, step)
        folder.mkdir()
        manifest = Manifest(step, 1, loss, files={}, validation_tokens=(tokens or {}).get(step))
        (folder / MANIFEST).write_text(manifest.text())


@pytest.mark.parametrize(
    ("losses", "limit", "kept"),
    [
        ({1: None, 2: None, 10: None}, 0, [1, 2, 10]),
        ({1: None, 2: None, 10: None}, 2, [2, 10]),
        ({1: None, 2: None, 10: None}, 1, [10]),
        ({1: 0.5, 2: 0.7, 3: 0.6, 4: None}, 2, [1, 3, 4]),
        ({1: 0.5, 2: 0.7, 3: 0.4, 4: None}, 2, [3, 4]),
        ({1: 0.7, 2: 0.5, 3: 0.6, 4: 0.8}, 1, [2, 4]),
    ],
)
def test_the_newest_and_the_best_stay(
    tmp_path: Path, losses: dict[int, float | None], limit: int, kept: list[int]
) -> None:
    checkpoints(tmp_path, losses)
    retention.remove_surplus(tmp_path, limit)
    assert sorted(step_of(path) or 0 for path in tmp_path.iterdir()) == kept


def test_losses_on_other_batches_are_not_compared(tmp_path: Path) -> None:
    losses = {1: 0.1, 2: 0.6, 3: 0.5, 4: 0.7, 5: None}
    checkpoints(tmp_path, losses, {1: 10, 2: 20, 3: 20, 4: 20})
    retention.remove_surplus(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3", "checkpoint-5"]


def test_what_was_skipped_is_set_aside_and_not_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "skipped-checkpoint-8").mkdir()
    checkpoints(tmp_path, {2: None, 4: None, 6: None, 8: None})
    retention.set_aside_newer(tmp_path, 4)
    checkpoints(tmp_path, {5: None, 6: None})
    retention.remove_surplus(tmp_path, 1)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("checkpoint-6", "skipped-checkpoint-6"),
        *("skipped-checkpoint-8", "skipped-checkpoint-8-2"),
    }
    assert "checkpoint-8 is not part of this run any more" in capsys.readouterr().out


def test_other_folders_are_neither_counted_nor_removed(tmp_path: Path) -> None:
    checkpoints(tmp_path, {1: None, 2: None, 3: None})
    for name in ("checkpoint-4", "checkpoint-x", "checkpoint-5.bak"):
        (tmp_path / name).mkdir()
    retention.remove_surplus(tmp_path, 2)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        *("checkpoint-2", "checkpoint-3"),
        *("checkpoint-4", "checkpoint-x", "checkpoint-5.bak"),
    }


def test_for_a_runs_folder_the_alternative_is_its_newest_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "check_numbers", lambda folder, manifest: None)  # it has none
    checkpoints(tmp_path, {1: None, 2: None})
    newest = tmp_path / "checkpoint-2"
    elsewhere = selection.alternative(tmp_path, tmp_path / "new")
    assert elsewhere == f"--resume_from_checkpoint {newest}"
    own = selection.alternative(tmp_path, tmp_path)
    assert own == f"--resume_from_checkpoint auto, which resumes from {newest}"


def test_only_leftovers_are_removed(tmp_path: Path) -> None:
    checkpoints(tmp_path, {3: None})
    for name in (".checkpoint-4.incomplete", ".checkpoint-2.old", ".incomplete", "mine.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("half")
    retention.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-3", ".incomplete", "mine.old"}


def test_what_a_run_resumes_from_stays(tmp_path: Path) -> None:
    """A newer one may be corrupt, and was skipped."""
    checkpoints(tmp_path, {1: None, 2: None, 3: None})
    retention.remove_surplus(tmp_path, 1, keep=tmp_path / "checkpoint-2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-3"]

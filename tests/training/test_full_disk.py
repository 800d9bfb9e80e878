"""A disk that fills up while a checkpoint is written asynchronously."""

import errno
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import finetuning
from llama_recipes_local.checkpoints import layout, verifying
from llama_recipes_local.checkpoints.writing import Writer
from llama_recipes_local.training.loggers import JsonLines

pytestmark = pytest.mark.slow


def test_the_checkpoint_in_progress_is_published_or_removed(
    tiny_model: Path,
    grammar_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = JsonLines.log

    def full(self: JsonLines, kind: str, step: int, numbers: Any) -> None:
        if step == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        log(self, kind, step, numbers)

    monkeypatch.setattr(JsonLines, "log", full)
    monkeypatch.setattr(Writer, "written", property(lambda self: False))  # it is slow
    with pytest.raises(SystemExit) as stopped:
        finetuning.main(
            model_name=str(tiny_model),
            data_root=str(grammar_data),
            data_cache=str(tmp_path / "cache"),
            output_dir=str(tmp_path / "out"),
            dataset="grammar_dataset",
            use_peft=True,
            context_length=64,
            batch_size_training=1,
            num_workers_dataloader=0,
            max_train_step=5,
            max_eval_step=1,
            save_steps=2,
            eval_steps=3,
            async_save=True,
        )
    assert stopped.value.code == 1
    assert "no space left on device" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob(".*"))
    newest = layout.checkpoints_in(tmp_path / "out")[0]
    assert newest.name == "checkpoint-2"
    verifying.verify(newest)

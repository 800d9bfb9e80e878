"""How a run ends that does not come to its first step."""

import os
import signal
from typing import Any

import pytest

from llama_recipes_local import finetuning, finetuning_run
from llama_recipes_local.errors import refusal


@pytest.mark.parametrize("place", ["preflight", "prepare_data", "train"])
def test_ctrl_c_before_the_first_step_is_a_line(
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_run: dict[str, Any],
    tmp_path: Any,
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(finetuning_run, place, interrupted)
    with pytest.raises(SystemExit) as ended:
        finetuning.main(**tiny_run, use_peft=True, context_length=64, output_dir=str(tmp_path))
    assert ended.value.code == 130
    assert capsys.readouterr().err.endswith("\nstopped by Ctrl-C\n")


def test_a_rank_saves_and_stops_when_torchrun_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, signal.Signals]] = []

    def refuse(*arguments: object) -> None:
        raise refusal("a", "b")

    monkeypatch.setattr(finetuning_run, "end_with_parent", lambda *given: asked.append(given))
    monkeypatch.setattr(finetuning_run, "prepare", refuse)
    for is_rank, expected in ((False, []), (True, [(os.getppid(), signal.SIGTERM)])):
        monkeypatch.setattr(finetuning_run.launch, "is_by_torchrun", lambda found=is_rank: found)
        with pytest.raises(SystemExit):
            finetuning.main(model_name="x")
        assert asked == expected

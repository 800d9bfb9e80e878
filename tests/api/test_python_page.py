"""The code of ``docs/python.md`` runs as it is there, in one namespace, on the tiny model."""

import re
from pathlib import Path
from typing import Any

import pytest

import llama_recipes_local
from llama_recipes_local.api import launching

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
SHORTER = {"max_train_step": 1, "max_eval_step": 1, "context_length": 64, "batch_size_training": 2}


@pytest.mark.slow
def test_the_code_of_the_page_runs(
    tiny_run: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "Llama-2-7b-hf").symlink_to(tiny_run["model_name"])
    finetune, launched = llama_recipes_local.finetune, []

    def shortened(**flags: Any) -> Any:
        short = SHORTER if "modle_name" not in flags else {}
        return finetune(**short | {"data_root": tiny_run["data_root"]} | flags)

    def started(processes: int, flags: dict[str, Any]) -> str:
        launched.append((processes, flags["enable_fsdp"]))
        return "a result"

    monkeypatch.setattr(llama_recipes_local, "finetune", shortened, raising=False)
    monkeypatch.setattr(launching, "finetune_launched", started)
    found: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    for block in blocks:
        exec(block, found)
    assert (tmp_path / "Llama-2-7b-my-lora" / "adapter_model.safetensors").is_file()
    assert (tmp_path / "work" / "losses.png").is_file()
    assert "did you mean --model_name?" in capsys.readouterr().out
    assert found["answer"] and found["result"] == "a result"
    assert launched == [(2, True)]

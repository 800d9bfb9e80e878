"""The files that a run's record names, by what they are for."""

from pathlib import Path

from llama_recipes_local.custody.run_inputs import run_inputs
from llama_recipes_local.run.resolution import resolve


def test_a_tokenizer_of_another_folder_is_an_input(tmp_path: Path) -> None:
    for name in ("model", "tokenizer", "adapter", "tokens"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text("{}")
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    flags = {
        "model_name": "model",
        "tokenizer_name": "tokenizer",
        "from_peft_checkpoint": "adapter",
        "tokens_path": "tokens",
    }
    run = resolve({flag: str(tmp_path / name) for flag, name in flags.items()})
    places, problems = run_inputs(run)
    assert {flag: place.folder.name for flag, place in places.items()} == flags
    assert [path.name for path in places["tokenizer_name"].files] == ["tokenizer.json"]
    assert problems == []

"""What only a pretrained model shows: it learns, it stops, and merged it says the same."""

import json
from pathlib import Path

import pytest

from llama_recipes_local import cli
from llama_recipes_local.finetuning import main

pytestmark = pytest.mark.command


def test_it_learns_stops_and_says_the_same_when_merged(
    smollm2: Path, grammar_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    main(
        model_name=str(smollm2),
        data_root=str(grammar_data),
        output_dir=str(adapter),
        dataset="grammar_dataset",
        config="first_run",
        dtype="bfloat16",
        context_length=256,
        max_train_step=4,
        max_eval_step=2,
        samples=0,
    )
    lines = (adapter / "evaluations.jsonl").read_text().splitlines()
    before, after = (json.loads(line)["loss"] for line in lines)
    assert after < 0.8 * before
    assert cli.main(["merge", "--adapter", str(adapter), "--out", str(merged)]) == 0
    texts = []
    for words in (["--adapter", str(adapter)], ["--model_name", str(merged)]):
        capsys.readouterr()
        prompt = ["--prompt", "He have two cat.", "--max_new_tokens", "24"]
        assert cli.main(["generate", *words, *prompt]) == 0
        texts.append(capsys.readouterr().out.strip())
    assert texts[0] == texts[1] and texts[0].startswith("He ")
    assert len(texts[0].splitlines()) == 1 and len(texts[0].split()) < 10  # it has stopped

"""A run ends with answers before and after training, and trains as if it had not asked for them."""

import json
from html import escape
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import cli, finetuning_run
from llama_recipes_local.finetuning import main

pytestmark = pytest.mark.slow


def train(model: Path, data: Path, folder: Path, **flags: Any) -> bytes:
    main(
        model_name=str(model),
        data_root=str(data),
        output_dir=str(folder),
        dataset=str(flags.pop("dataset", "grammar_dataset")),
        use_peft=flags.pop("use_peft", True),
        context_length=128,
        lr=flags.pop("lr", 0.01),
        num_epochs=1,
        max_train_step=3,
        num_workers_dataloader=0,
        **flags,
    )
    weights = folder / "adapter_model.safetensors"
    return weights.read_bytes() if weights.is_file() else b""


def test_answers_are_those_of_evaluate_and_training_is_the_same(
    tiny_model: Path,
    grammar_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = train(tiny_model, grammar_data, tmp_path / "plain", lora_dropout=0.5)
    sections: list[str] = []
    monkeypatch.setattr(
        finetuning_run, "closing_text", lambda run: sections.extend(run.closing) or "the end"
    )
    asked = train(tiny_model, grammar_data, tmp_path / "asked", lora_dropout=0.5, samples=2)
    assert asked == plain  # to the bit, with dropout
    (section,) = sections
    lines = [line.split("  ", 1) for line in section.splitlines() if "  " in line]
    shown = [
        {name: text.strip() for name, text in lines[start : start + 4]} for start in range(0, 8, 4)
    ]
    out = tmp_path / "evaluation.json"
    words = ["--adapter", tmp_path / "asked", "--max_examples", 32, "--max_new_tokens", 48]
    words += ["--metrics", "gleu", "--batch_size", 32, "--out", out]
    assert cli.main(["evaluate", *map(str, words)]) == 0
    found = json.loads(out.read_text())
    answers = {each["source"].strip(): each for each in found["answers"]}
    for each in shown:
        expected = answers[each["prompt"]]
        assert each["after"].removesuffix(" ...") in " ".join(expected["prediction"].split())
        assert each["reference"] == expected["references"][0]
        assert each["prompt"] not in expected["references"]
    assert f"{found['metrics']['gleu']['value']:.3f} after" in section
    saved = json.loads((tmp_path / "asked" / "sample_answers.json").read_text())
    assert [each["prompt"] for each in saved["answers"]] == [each["prompt"] for each in shown]
    assert saved["gleu_after"] == pytest.approx(found["metrics"]["gleu"]["value"])
    page = (tmp_path / "asked" / "report.html").read_text("utf-8")
    forgetting = tmp_path / "forgetting.json"
    words = ["--benchmark", "forgetting", "--adapter", tmp_path / "asked", "--out", forgetting]
    assert cli.main(["evaluate", *map(str, words)]) == 0
    measured = json.loads(forgetting.read_text())["metrics"]["perplexity"]
    # sums of float32 in another order
    assert saved["general_perplexity_before"] == pytest.approx(measured["before"], rel=1e-4)
    assert saved["general_perplexity_after"] == pytest.approx(measured["value"], rel=1e-4)
    assert f"{saved['general_perplexity_after']:.3f} after (" in section
    assert "perplexity of general texts, after training" in page
    assert escape(shown[0]["reference"]) in page and "use_peft" in page
    assert (tmp_path / "asked" / "report.png").is_file()
    record = json.loads((tmp_path / "asked" / "run_config.json").read_text())
    assert record["network"] == {"attempts": 0, "to": []} and len(record["code"]) == 64


@pytest.mark.parametrize("adapter", [True, False])
def test_the_weights_that_are_kept_answer(
    adapter: bool,
    tiny_model: Path,
    grammar_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words: dict[str, Any] = {"eval_steps": 1, "max_eval_step": 2, "samples": 2, "weight_decay": 0.0}
    words |= {"use_peft": adapter, "lr": 3.0}  # the first step is the best
    train(tiny_model, grammar_data, tmp_path / "run", **words)
    printed = capsys.readouterr().out
    evaluations = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    losses = {each["step"]: each["loss"] for each in map(json.loads, evaluations)}
    best = min(list(losses)[1:], key=losses.__getitem__)
    assert best != max(losses), "the last step must not be the best"
    assert ("the last step's weights answer" in printed) is not adapter
    if not adapter:
        return
    out = tmp_path / "evaluation.json"
    asked = ["--adapter", tmp_path / "run", "--max_examples", 32, "--max_new_tokens", 48]
    asked += ["--metrics", "gleu", "--batch_size", 32, "--out", out]
    assert cli.main(["evaluate", *map(str, asked)]) == 0
    found = {e["source"].strip(): e["prediction"] for e in json.loads(out.read_text())["answers"]}
    saved = json.loads((tmp_path / "run" / "sample_answers.json").read_text())
    for each in saved["answers"]:
        assert each["after"] == " ".join(found[each["prompt"]].split())


@pytest.mark.parametrize(
    "flags",
    [
        {"enable_fsdp": True, "fsdp_cpu_offload": True},
        {"peft_method": "prefix"},
    ],
)
def test_what_cannot_answer_is_refused(
    flags: dict[str, Any],
    tiny_model: Path,
    grammar_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        train(tiny_model, grammar_data, tmp_path / "run", samples=2, **flags)
    assert "--samples 2 with" in capsys.readouterr().err


def test_own_instructions_are_answered_and_plain_text_is_not(
    tiny_model: Path, grammar_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"instruction": f"Say {n}.", "output": f"It is {n}."} for n in range(40)]
    texts = [{"text": f"A line of text with number {n}."} for n in range(40)]
    for name, content in {"asked": rows, "plain": texts}.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(each) + "\n" for each in content))
        train(tiny_model, grammar_data, tmp_path / name, samples=2, dataset=path)
    saved = json.loads((tmp_path / "asked" / "sample_answers.json").read_text())
    assert len(saved["answers"]) == 2 and "gleu_after" not in saved
    for each in saved["answers"]:
        assert "Say " in each["prompt"] and each["reference"].startswith("It is ")
    assert not (tmp_path / "plain" / "sample_answers.json").exists()
    assert "no answers are shown" in capsys.readouterr().out

"""``evaluate`` gives the loss that training logged, answers as ``generate`` does, and compares."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llama_recipes_local import cli
from llama_recipes_local.answers.measures import Measure, ratio
from llama_recipes_local.commands.evaluate.document_losses import DocumentLosses
from llama_recipes_local.commands.evaluate.metrics import METRICS, Answer, AnswerMetric
from llama_recipes_local.data.token_rows import IGNORE_INDEX
from llama_recipes_local.finetuning import main
from llama_recipes_local.models import LlamaForCausalLM

pytestmark = pytest.mark.slow

FEW = ("--max_examples", 3, "--max_new_tokens", 8)


def train(
    model: Path, data: Path, folder: Path, strategy: str, context: int = 128, **flags: Any
) -> Path:
    """A short run's folder, its adapter that of the last validation."""
    main(
        model_name=str(model),
        data_root=str(data),
        output_dir=str(folder),
        dataset="grammar_dataset",
        batching_strategy=strategy,
        use_peft=True,
        context_length=context,
        lr=0.01,
        num_epochs=1,
        max_train_step=4,
        num_workers_dataloader=0,
        **flags,
    )
    return folder


@pytest.fixture(scope="module")
def trained(tiny_model: Path, grammar_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_model, grammar_data, tmp_path_factory.mktemp("runs") / "run", "packing")


def evaluate(out: Path, *words: object) -> dict[str, Any]:
    assert cli.main(["evaluate", *map(str, words), "--out", str(out)]) == 0
    return json.loads(out.read_text())


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert cli.main(["evaluate", *map(str, words)]) == 2
    return capsys.readouterr().err


def logged(folder: Path) -> tuple[float, float]:
    """The validation losses before and after training."""
    lines = (folder / "evaluations.jsonl").read_text().splitlines()
    before, after = (json.loads(line)["loss"] for line in lines)
    assert after < before
    return before, after


def test_the_loss_is_what_training_logged(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluate(tmp_path / "a.json", "--adapter", trained, *FEW)
    loss, perplexity = result["metrics"]["loss"], result["metrics"]["perplexity"]
    assert loss["value"] == logged(trained)[1]
    assert loss["low"] < loss["value"] < loss["high"]
    assert perplexity["value"] == pytest.approx(2.718281828459045 ** loss["value"])
    documents = result["documents"]
    assert len(documents) == 20
    # each document's float32 losses are summed apart, and not in the batch's order
    total = sum(each["loss"] for each in documents) / sum(each["tokens"] for each in documents)
    assert total == pytest.approx(loss["value"], rel=1e-5)
    printed = capsys.readouterr().out
    assert "gleu" in printed and f"{loss['value']:.4f}" in printed


def test_the_loss_of_padded_rows_is_what_training_logged(
    tiny_model: Path, grammar_data: Path, tmp_path: Path
) -> None:
    padded = train(tiny_model, grammar_data, tmp_path / "run", "padding")
    result = evaluate(tmp_path / "a.json", "--adapter", padded, "--metrics", "loss")
    assert result["metrics"]["loss"]["value"] == logged(padded)[1]
    assert len(result["documents"]) == 20


def test_a_prefix_has_the_loss_that_training_logged(
    tiny_model: Path, grammar_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PEFT's own way, used for answers, lets documents of a packed row attend to each other."""
    prefix = train(tiny_model, grammar_data, tmp_path / "run", "packing", 400, peft_method="prefix")
    words = ("--adapter", prefix, *FEW, "--metrics")
    result = evaluate(tmp_path / "a.json", *words, "loss,gleu")
    assert result["metrics"]["loss"]["value"] == logged(prefix)[1]
    alone = evaluate(tmp_path / "b.json", *words, "gleu", "--attn_implementation", "sdpa")
    assert result["answers"] == alone["answers"]
    said = refused(capsys, *words, "loss", "--attn_implementation", "sdpa", "--out", tmp_path / "c")
    assert f"--attn_implementation sdpa with --adapter {prefix}" in said


def test_answers_equal_those_of_generate(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluate(tmp_path / "a.json", "--adapter", trained, "--metrics", "gleu,rouge", *FEW)
    assert set(result["metrics"]) == {"gleu", "rouge1", "rouge2", "rougeL"}
    assert len(result["answers"]) == 3
    assert [len(each["references"]) for each in result["answers"]] == [4, 4, 4]
    assert all(each["ended"] in (True, False) for each in result["answers"])
    for answer in result["answers"]:
        capsys.readouterr()
        words = ("--adapter", trained, "--prompt", answer["source"], "--max_new_tokens", 8)
        assert cli.main(["generate", *map(str, words)]) == 0
        assert capsys.readouterr().out.strip() == answer["prediction"]


def test_two_results_are_compared(
    trained: Path,
    tiny_model: Path,
    grammar_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--metrics", "loss,gleu", *FEW)
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    evaluate(b, "--adapter", trained, *words)
    same = ("--dataset", "grammar_dataset", "--data_root", grammar_data, "--context_length", 128)
    base = ("--model_name", tiny_model)
    evaluate(a, *base, *same, *words)
    capsys.readouterr()
    assert cli.main(["evaluate", "--compare", str(a), str(b)]) == 0
    printed = capsys.readouterr().out
    (row,) = (line.split() for line in printed.splitlines() if line.startswith("loss"))
    before, after = (json.loads(path.read_text())["metrics"]["loss"]["value"] for path in (a, b))
    assert row[1:4] == [f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}"]
    assert float(row[4]) < float(row[6]) < 0
    assert row[-1] == "b"
    result = json.loads(a.read_text())
    for factor, code in ((1.0001, 0), (1.1, 2)):  # another order of the sum; another value
        result["metrics"]["loss"]["value"] = before * factor
        a.write_text(json.dumps(result))
        assert cli.main(["evaluate", "--compare", str(a), str(b)]) == code
        captured = capsys.readouterr()
        assert f"{before * factor:.4f}" in captured.out or "but its items give" in captured.err
    evaluate(a, *base, *same, "--metrics", "gleu", "--max_examples", 2, "--max_new_tokens", 2)
    assert "2 are the same" in refused(capsys, "--compare", a, b)
    assert "exactly two files" in refused(capsys, "--compare", a, b, b)
    a.write_text("{}")
    assert str(a) in refused(capsys, "--compare", a, b)
    error = refused(capsys, "--compare", tmp_path / "c.json", b)
    assert f"{tmp_path / 'c.json'} does not exist" in error and "Error" not in error


@pytest.mark.parametrize("flag", ["--adapter", "--compare", "--out"])
def test_a_flag_without_a_value_is_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["evaluate", flag])
    assert stopped.value.code == 2
    assert f"argument {flag}: expected" in capsys.readouterr().err


def test_a_result_is_not_replaced_unsaid(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", "--adapter", str(trained), "--metrics", "loss"]
    for name in ("evaluation.json", "evaluation-2.json", "evaluation-3.json"):
        assert cli.main(words) == 0
        assert capsys.readouterr().out.rstrip().endswith(f"saved to {tmp_path / name}")
    assert cli.main([*words, "--out", "evaluation-2.json"]) == 0
    assert "evaluation-2.json (what was there is replaced)" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 3


def test_a_documents_loss_in_a_packed_row_is_its_loss_alone(tiny_model: Path) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM.from_pretrained(tiny_model, attn_implementation="documents").eval()
    lengths = (5, 9, 2)
    documents = [torch.randint(3, 900, (1, length)) for length in lengths]
    labels = [ids.clone() for ids in documents]
    for each in labels:
        each[:, 0] = IGNORE_INDEX
    labels[1][:, :4] = IGNORE_INDEX
    packed = {
        "input_ids": torch.cat(documents, 1),
        "labels": torch.cat(labels, 1),
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
    }
    found = DocumentLosses()
    with torch.no_grad():
        positions = packed["position_ids"]
        found.add(packed, model(packed["input_ids"], position_ids=positions).logits)
        alone = [
            float(model(ids, labels=each, num_items_in_batch=1).loss)
            for ids, each in zip(documents, labels, strict=True)
        ]
    assert found.tokens == [4, 5, 1]
    # float32 sums of at most nine logarithms, in another order
    assert found.losses == pytest.approx(alone, rel=1e-5)
    again = DocumentLosses()
    for ids, each in zip(documents, labels, strict=True):
        again.add({"input_ids": ids, "labels": each}, model(ids).logits.detach())
    assert again.keys == found.keys
    padded = DocumentLosses()
    filled = torch.cat([documents[0], torch.full((1, 3), 2)], 1)
    unlabelled = torch.cat([labels[0], torch.full((1, 3), IGNORE_INDEX)], 1)
    mask = torch.tensor([[1] * 5 + [0] * 3])
    row = {"input_ids": filled, "labels": unlabelled, "attention_mask": mask}
    padded.add(row, model(filled, attention_mask=mask).logits.detach())
    assert padded.keys == found.keys[:1]
    assert padded.losses == pytest.approx(alone[:1], rel=1e-5)
    again.add({"input_ids": ids, "labels": each}, model(ids).logits.detach())
    assert again.keys[-1] == again.keys[-2].replace("-1", "-2")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--metrics", "bleu"), "unknown metric"),
        (("--batch_size", 0), "--batch_size 0"),
        (("--max_new_token", 3), "did you mean --max_new_tokens?"),
        (("--local_dataset.columns", "text=a", "--dataset", "local_dataset"), "datasets/local"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    words: tuple[object, ...],
    said: str,
    tiny_model: Path,
    grammar_data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = ("--dataset", "grammar_dataset") if "--dataset" not in words else ()
    base = ("--model_name", tiny_model, "--data_root", grammar_data)
    assert said in refused(capsys, *base, *data, *words)


def test_no_data_set_is_guessed_if_none_is_given_or_recorded(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, "--model_name", tiny_model)
    assert error.startswith("1 problem") and "no data set was named" in error
    assert "--dataset PATH, your own files" in error


def test_an_empty_folder_lacks_a_model_and_a_tokenizer_in_one_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, "--model_name", tmp_path)
    assert error.startswith("3 problems") and "no data set was named" in error
    assert "has no config.json" in error and "has no tokenizer" in error
    assert "--dataset NAME" in error and "samsum.json" not in error


def test_the_training_part_may_be_missing(
    tiny_model: Path, grammar_data: Path, tmp_path: Path
) -> None:
    validation = shutil.copy(grammar_data / "datasets/grammar/grammar_validation.csv", tmp_path)
    words = ("--model_name", tiny_model, "--dataset", "grammar_dataset", "--metrics", "loss")
    words = (*words, "--data_root", tmp_path, "--grammar_dataset.test_split", validation)
    assert evaluate(tmp_path / "a.json", *words)["metrics"]["loss"]["value"] > 0


def test_what_would_fail_after_measuring_is_refused_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--adapter", tmp_path / "none", "--out")
    assert "not a writable folder" in refused(capsys, *words, tmp_path / "new/a.json")
    assert f"{tmp_path} is a folder" in refused(capsys, *words, tmp_path)
    words = (*words, tmp_path / "a.json", "--max_examples")
    assert "--max_examples -1" in refused(capsys, *words, -1)
    assert "--max_examples all" in refused(capsys, *words, "all")


def test_chat_data_is_asked_up_to_its_last_answer_and_plain_text_is_refused(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Say {number}"},
                {"role": "assistant", "content": f"It is {number}."},
            ]
        }
        for number in range(4)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ("--dataset", "local_dataset", "--local_dataset.data_path", file)
    data = (*data, "--local_dataset.validation_path", file, "--local_dataset.template", "llama2")
    words = ("--model_name", tiny_model, *data, *FEW, "--metrics")
    result = evaluate(tmp_path / "a.json", *words, "rouge")
    assert [each["references"] for each in result["answers"]] == [
        [f"It is {number}."] for number in range(3)
    ]
    assert result["answers"][0]["key"] == "<s>[INST] Say 0 [/INST]"
    assert "--metrics gleu" in refused(capsys, *words, "gleu", "--out", tmp_path / "b.json")
    file.write_text('{"text": "a b c"}\n{"text": "d e f"}\n')
    plain = ("--model_name", tiny_model, *data[:6], *FEW, "--metrics")
    assert "--metrics loss,perplexity" in refused(capsys, *plain, "rouge")


def test_a_full_model_is_measured_on_the_data_that_its_run_recorded(
    trained: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Its record names the data; that it names another model is ignored."""
    whole = shutil.copytree(tiny_model, tmp_path / "whole")
    record = json.loads((trained / "run_config.json").read_text())
    record["train_config"]["model_name"] = "/no/such/model"
    (whole / "run_config.json").write_text(json.dumps(record))
    words = ("--model_name", whole, "--metrics", "loss")
    result = evaluate(tmp_path / "a.json", *words)
    assert result["metrics"]["loss"]["value"] == logged(trained)[0]


def test_a_full_model_that_training_saved_is_what_the_run_suggests_and_is_measured(
    tiny_model: Path, grammar_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All layers are trained: the folder has no tokenizer, its record names the one it used."""
    main(
        model_name=str(tiny_model),
        data_root=str(grammar_data),
        output_dir=str(tmp_path / "run"),
        dataset="grammar_dataset",
        context_length=128,
        lr=0.01,
        num_epochs=1,
        max_train_step=2,
        num_workers_dataloader=0,
    )
    said = capsys.readouterr().out.replace(" \\\n    ", " ")
    assert f"saved in         {tmp_path / 'run'}" in said
    for suggested in ("generate", "evaluate"):
        assert f"{suggested} --model_name {tmp_path / 'run'} --" in said
    words = ("--model_name", tmp_path / "run", "--metrics", "loss")
    result = evaluate(tmp_path / "a.json", *words)
    assert result["metrics"]["loss"]["value"] == logged(tmp_path / "run")[1]


def test_other_data_than_the_runs_leaves_the_settings_of_its_data_out(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "Add 1 and 2.", "output": "3"}\n' * 40)
    words = ("--adapter", trained, "--dataset", rows, "--metrics", "loss")
    assert evaluate(tmp_path / "a.json", *words)["metrics"]["loss"]["value"] > 0
    record = ("--config", trained / "run_config.json")
    assert evaluate(tmp_path / "b.json", *words, *record)["metrics"]["loss"]["value"] > 0
    error = refused(capsys, *words, "--grammar_dataset.train_split", "x.csv")
    assert "--grammar_dataset.train_split with --dataset local_dataset" in error


def test_a_run_in_the_working_directory_is_not_used_if_none_is_given(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    assert "no model was named" in refused(capsys)


def test_a_new_metric_is_a_line_in_the_registry(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """It is measured, saved, printed and compared as the others are."""

    def words(answers: Sequence[Answer]) -> list[Measure]:
        parts = np.array([[len(each["prediction"].split()), 1] for each in answers], float)
        return [Measure("words", tuple(each["key"] for each in answers), parts, ratio)]

    monkeypatch.setitem(METRICS, "words", AnswerMetric(words))
    a = tmp_path / "a.json"
    result = evaluate(a, "--adapter", trained, "--metrics", "words", *FEW)
    lengths = [len(each["prediction"].split()) for each in result["answers"]]
    assert result["metrics"]["words"]["value"] == pytest.approx(sum(lengths) / len(lengths))
    assert "words" in capsys.readouterr().out
    assert cli.main(["evaluate", "--compare", str(a), str(a)]) == 0
    assert "not significant" in capsys.readouterr().out

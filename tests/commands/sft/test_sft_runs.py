"""Real runs: in this process, under torchrun, and without sockets."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from sft_guide import GUIDE
from transformers import AutoModelForCausalLM, AutoTokenizer

from llama_recipes_local.storage.folder_lock import locked

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[3]
Sft = Callable[..., int]
OUTPUT = Path("../Llama-2-7b-my-lora")
# One epoch of the 64 rows is four steps.
SHORT = ["--num_train_epochs", "1", "--gradient_accumulation_steps", "1", "--logging_steps", "1"]
UNDROPPED = ["--use_peft", "--lora_dropout", "0", "--learning_rate", "5e-3"]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def torchrun(*words: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run sft.py on two ranks, as the guide does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nnodes", "1", "--nproc_per_node", "2", str(PROJECT / "sft.py"), *words]
    return subprocess.run(
        command,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def mean_loss(model: Any, tokenizer: Any, path: Path) -> float:
    """The mean over the label tokens of a file's texts, each alone, with the end of text."""
    losses = []
    for row in lines(path):
        ids = torch.tensor([tokenizer(row["text"] + tokenizer.eos_token)["input_ids"]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits
        losses.append(
            torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")
        )
    return float(torch.cat(losses).mean())


def test_an_adapter_is_trained_saved_and_reloaded(sft: Sft, work: Path) -> None:
    flags = ["--use_peft", "--learning_rate", "5e-3", "--eval_strategy", "epoch"]
    assert sft(*flags, "--logging_steps", "1") == 0
    metrics = lines(OUTPUT / "metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(1, 25))
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.3
    evaluated = lines(OUTPUT / "evaluations.jsonl")[-1]["eval_loss"]

    base = work.parent / "Llama-2-7b-hf"
    plain = AutoModelForCausalLM.from_pretrained(base)
    data = work / "datasets/openassistant-guanaco/openassistant_best_replies_eval.jsonl"
    tokenizer = AutoTokenizer.from_pretrained(base)
    untrained = mean_loss(plain, tokenizer, data)
    adapted = PeftModel.from_pretrained(plain, OUTPUT)
    # one batch and one by one: float32 sums in another order
    assert mean_loss(adapted.eval(), tokenizer, data) == pytest.approx(evaluated, abs=1e-5)
    assert evaluated < untrained - 0.3

    saved = json.loads((OUTPUT / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == str(base.resolve())
    resolved = json.loads((OUTPUT / "sft_config.json").read_text())
    assert resolved["training"]["learning_rate"] == 5e-3
    assert resolved["flags"]["learning_rate"] == "5e-3"
    page = (OUTPUT / "report.html").read_text("utf-8")
    assert '<th scope="row">learning_rate</th><td>5e-3</td>' in page
    assert resolved["model"]["lora_r"] == 16
    assert resolved["data"]["train"][0].endswith("openassistant_best_replies_train.jsonl")
    assert resolved["local_dataset"]["labels"] == "assistant"
    assert {"trl", "torch", "transformers"} <= resolved["versions"].keys()
    card = (OUTPUT / "README.md").read_text()
    assert f"| base model | {base.resolve().name} |" in card
    assert "python sft.py --model_name" in card
    assert f"| validation loss after training | {evaluated:.4f} |" in card
    assert str(work.parent) not in card and "`sft_config.json`" in card
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (OUTPUT / name).read_bytes() == (base / name).read_bytes()
    assert json.loads((OUTPUT / "prompt_template.json").read_text())["kind"] == "prompt"
    assert json.loads((OUTPUT / "data_audit.json").read_text())["train"]["rows"] == 64
    assert not list(OUTPUT.glob("checkpoint-*/README.md"))
    (checkpoint,) = OUTPUT.glob("checkpoint-*")
    assert not list(checkpoint.glob("optimizer*"))


def test_all_weights_are_trained_without_an_adapter(sft: Sft, work: Path) -> None:
    assert sft(*SHORT, "--max_steps", "1", "--gradient_checkpointing") == 0
    for folder in (OUTPUT, *OUTPUT.glob("checkpoint-*")):
        config = json.loads((folder / "config.json").read_text())
        assert config["use_cache"] is True  # training switches it off
        generation = json.loads((folder / "generation_config.json").read_text())
        assert generation.get("use_cache", True) is True
    before = load_file(work.parent / "Llama-2-7b-hf" / "model.safetensors")
    after = load_file(OUTPUT / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before if "proj" in name)


@pytest.mark.parametrize(("dtype", "expected"), [([], "float32"), (["bfloat16"], "bfloat16")])
def test_adapters_on_4_bit_weights(dtype: list[str], expected: str, sft: Sft) -> None:
    asked = ["--adapter_dtype", *dtype] if dtype else []
    assert sft(*SHORT, "--use_peft", "--load_in_4bit", "--max_steps", "1", *asked) == 0
    dtypes = {str(t.dtype) for t in load_file(OUTPUT / "adapter_model.safetensors").values()}
    assert dtypes == {f"torch.{expected}"}


def test_a_non_finite_loss_stops_the_run(
    sft: Sft, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(work.parent / "Llama-2-7b-hf", "broken")
    weights = load_file("broken/model.safetensors")
    weights["model.norm.weight"][0] = 3e38
    save_file(weights, "broken/model.safetensors", metadata={"format": "pt"})
    assert sft(*SHORT, "--use_peft", "--model_name", "broken") == 1
    assert "non-finite loss at step 1: nan" in capsys.readouterr().err
    assert not (OUTPUT / "adapter_model.safetensors").exists()


def test_a_usage_error_exits_with_code_2(sft: Sft, capsys: pytest.CaptureFixture[str]) -> None:
    assert sft("--lora_rr", "4") == 2
    assert "fix: did you mean --lora_r?" in capsys.readouterr().err
    assert not OUTPUT.exists()


def test_a_second_run_in_the_same_folder_starts_nothing(
    sft: Sft, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(OUTPUT):
        assert sft("--use_peft", *SHORT) == 2
    assert "another run writes into" in capsys.readouterr().err
    assert not list(OUTPUT.iterdir())


def test_a_missing_trl_is_reported(
    sft: Sft, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_recipes_local.extras.find_spec", lambda name: None)
    assert sft() == 2
    assert "[sft]'\n" in capsys.readouterr().err


def test_help_lists_the_flags(sft: Sft, capsys: pytest.CaptureFixture[str]) -> None:
    assert sft("--help") == 0
    printed = capsys.readouterr().out
    for flag in ("--dataset_name", "--local_dataset.columns", "--lora_r", "--max_length"):
        assert flag in printed


@pytest.mark.ranks
def test_the_guides_command_on_two_ranks(work: Path, environment: dict[str, str]) -> None:
    done = torchrun(*GUIDE, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--> --batch_size 4 is ignored" in done.stdout
    assert (
        "--> global batch: 256 rows (64 per micro-batch, 2 micro-batches, 2 ranks)" in done.stdout
    )
    assert done.stdout.count("--> train data: 64 rows") == 1
    metrics = lines(OUTPUT / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3]
    weights = load_file(OUTPUT / "adapter_model.safetensors")
    # 4-bit weights, 64 ranks of float32 on each projection of queries and of values
    assert {tuple(t.shape) for n, t in weights.items() if "lora_A" in n} == {(64, 64)}
    assert {t.dtype for t in weights.values()} == {torch.float32}
    assert all(t.abs().sum() > 0 for t in weights.values())


@pytest.mark.ranks
def test_two_ranks_equal_one_process(sft: Sft, work: Path, environment: dict[str, str]) -> None:
    assert sft(*SHORT, *UNDROPPED, "--per_device_train_batch_size", "16") == 0
    alone, losses = load_file(OUTPUT / "adapter_model.safetensors"), lines(OUTPUT / "metrics.jsonl")
    shutil.rmtree(OUTPUT)
    words = [*SHORT, *UNDROPPED, "--per_device_train_batch_size", "8"]
    done = torchrun(*GUIDE[:6], *words, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    together = load_file(OUTPUT / "adapter_model.safetensors")
    assert alone.keys() == together.keys()
    for name, weight in alone.items():
        # float32 sums in another order, and Adam divides small gradients by their own size
        torch.testing.assert_close(together[name], weight, rtol=0, atol=1e-4)
    for one, two in zip(losses, lines(OUTPUT / "metrics.jsonl"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert two["num_tokens"] == one["num_tokens"]


def test_tokens_without_rows_are_refused_in_data_and_not_padded_with(
    sft: Sft, work: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """TRL gives the model no rows for them, and the embedding has none to look up."""
    model = work.parent / "Llama-2-7b-hf"
    model.unlink()
    shutil.copytree(tiny_model, model)
    rows = AutoModelForCausalLM.from_pretrained(model).config.vocab_size
    tokenizer = AutoTokenizer.from_pretrained(model)
    more = [f"<new{number}>" for number in range(rows - len(tokenizer) + 1)]
    tokenizer.add_tokens(more)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(model)
    for name, word in (("plain", "word"), ("new", more[-1])):
        texts = [{"text": f"{word} {'more ' * number}"} for number in range(1, 9)]
        Path(f"{name}.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in texts))
    flags = ["--use_peft", "--max_steps", "1", "--per_device_train_batch_size", "4"]
    assert sft(*flags, "--dataset_name", "plain.jsonl") == 0
    capsys.readouterr()
    assert sft(*flags, "--dataset_name", "new.jsonl", "--output_dir", "other") == 2
    error = capsys.readouterr().err
    assert "tokens that the model has no rows for: " in error and "use finetuning.py" in error

"""``evaluate --benchmark forgetting``: perplexity on general texts, before training and after."""

import json
import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from llama_families import build
from transformers import AutoModelForCausalLM

from llama_recipes_local.benchmark_tasks.forgetting_losses import perplexity_of
from llama_recipes_local.benchmark_tasks.forgetting_texts import KINDS, texts
from llama_recipes_local.cli import main
from llama_recipes_local.models import AutoTokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and an adapter with random weights beside it."""
    place = tmp_path_factory.mktemp("models")
    model = build("Llama 2 Chat", place / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    adapted = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(model),
        peft.LoraConfig(target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.1)
    adapted.save_pretrained(str(place / "adapter"))
    return place


def measure(out: Path, *words: str | Path) -> dict[str, dict[str, Any]]:
    given = ["--benchmark", "forgetting", "--out", out, *words]
    assert main(["evaluate", *map(str, given)]) == 0
    return {each["name"]: each for each in json.loads(out.read_text())["parts"]["perplexity"]}


def reference(folder: Path, kind: str, adapter: bool) -> float:
    """Return transformers' own perplexity."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    if adapter:
        model = peft.PeftModel.from_pretrained(model, str(folder / "adapter"))
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    total = count = 0
    for text in texts(kind):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            total += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return math.exp(total / count)


def test_an_adapter_is_measured_beside_its_base(folder: Path, tmp_path: Path) -> None:
    found = measure(tmp_path / "out.json", "--adapter", folder / "adapter")
    assert list(found) == [*KINDS, "all"]
    for kind in ("english", "code"):
        # float32 sums in another order
        assert found[kind]["before"] == pytest.approx(reference(folder, kind, False), rel=1e-4)
        assert found[kind]["value"] == pytest.approx(reference(folder, kind, True), rel=1e-4)
    assert all(each["before"] != each["value"] for each in found.values())


def test_a_model_that_a_run_wrote_is_measured_beside_the_one_it_names(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--adapter", str(folder / "adapter"), "--out", str(tmp_path / "merged")]
    assert main(["merge", *words]) == 0
    alone = measure(tmp_path / "alone.json", "--model_name", tmp_path / "merged")
    assert all(each["before"] is None for each in alone.values())
    assert "the model before training is not known" in capsys.readouterr().out
    record = {"train_config": {"model_name": str(folder / "model")}}
    (tmp_path / "merged" / "run_config.json").write_text(json.dumps(record))
    found = measure(tmp_path / "out.json", "--model_name", tmp_path / "merged")
    base = measure(tmp_path / "base.json", "--model_name", folder / "model")
    for kind, each in found.items():
        assert each["value"] == alone[kind]["value"]
        assert each["before"] == base[kind]["value"]


def test_two_models_are_compared(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measure(tmp_path / "a.json", "--model_name", folder / "model")
    measure(tmp_path / "b.json", "--adapter", folder / "adapter")
    capsys.readouterr()
    assert main(["evaluate", "--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    assert "perplexity" in capsys.readouterr().out


def test_flags_of_other_benchmarks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--benchmark", "forgetting", "--num_fewshot", "0", "--max_examples", "3"]
    assert main(["evaluate", *words, "--model_name", "nowhere"]) == 2
    error = capsys.readouterr().err
    for said in ("--num_fewshot with --benchmark", "--max_examples with", "nowhere"):
        assert said in error


def test_texts_are_small_and_whole() -> None:
    found = {kind: texts(kind) for kind in KINDS}
    assert all(len(each) == 5 for each in found.values())
    assert all(text and text == text.strip() for each in found.values() for text in each)
    assert sum(len(text.encode()) for each in found.values() for text in each) < 8_000


def test_a_model_that_diverged_has_a_perplexity() -> None:
    rows = {"a": [1, 2, 3], "b": [1, 2]}
    assert perplexity_of({"a": math.log(8), "b": 0.0}, rows) == pytest.approx(2)
    assert perplexity_of({"a": 1e4, "b": 1e4}, rows) == math.inf

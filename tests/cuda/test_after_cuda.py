"""What comes after training, on CUDA: the adapter and the merged model generate the same."""

import json
from pathlib import Path

import pytest
import torch

from llama_recipes_local import cli
from llama_recipes_local.finetuning import main

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PROMPT = "She go to school yesterday."


@pytest.fixture(scope="module")
def trained(tiny_model: Path, grammar_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, its adapter trained enough to change what the model says."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    main(
        model_name=str(tiny_model),
        data_root=str(grammar_data),
        output_dir=str(folder),
        dataset="grammar_dataset",
        use_peft=True,
        context_length=128,
        lr=0.01,
        num_epochs=4,
    )
    return folder


def generate(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    words = (*words, "--prompt", PROMPT, "--max_new_tokens", 24)
    assert cli.main(["generate", *map(str, words)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_and_its_merged_folder_generate_the_same(
    dtype: str,
    trained: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    merged = ("--adapter", trained, "--model", tiny_model, "--out", tmp_path / "merged")
    assert cli.main(["merge", *map(str, merged)]) == 0
    adapted = generate(capsys, "--adapter", trained, "--dtype", dtype)
    assert adapted == generate(capsys, "--model_name", tmp_path / "merged", "--dtype", dtype)
    assert adapted != generate(
        capsys, "--model_name", tiny_model, "--dataset", "grammar_dataset", "--dtype", dtype
    )


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_4_bits_are_the_same_on_the_cpu_as_on_cuda(kind: str) -> None:
    """``merge`` rounds on the CPU what training saw on CUDA."""
    from bitsandbytes import functional

    from llama_recipes_local.commands.merge.base_tensors import FourBit

    torch.manual_seed(0)
    weight = torch.randn(256, 512, dtype=torch.bfloat16)
    packed, state = functional.quantize_4bit(weight.cuda(), quant_type=kind)
    on_cuda = functional.dequantize_4bit(packed, state).cpu()
    on_cpu = FourBit(kind, double=False).round(weight)
    # a value halfway between two of the sixteen may go to either
    assert (on_cuda != on_cpu).float().mean() < 1e-3


def test_evaluate_gives_the_loss_that_training_logged(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    words = ("evaluate", "--adapter", trained, "--out", out, "--max_examples", 4)
    assert cli.main([*map(str, words)]) == 0
    result = json.loads(out.read_text())
    lines = (trained / "evaluations.jsonl").read_text().splitlines()
    logged = min(json.loads(line)["loss"] for line in lines)
    # the same kernels on the same batches; they may sum in another order
    assert result["metrics"]["loss"]["value"] == pytest.approx(logged, rel=1e-3)
    assert 0 <= result["metrics"]["gleu"]["value"] <= 1


def test_a_batch_on_cuda(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A padded batch says what each prompt says alone, in float32."""
    prompts = [PROMPT, "I", "He have two very old cat and she like it."]
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(prompts))
    words = ("--adapter", trained, "--dtype", "float32", "--max_new_tokens", 12)
    capsys.readouterr()
    assert cli.main(["generate", *map(str, (*words, "--prompts", file))]) == 0
    batch = [json.loads(line)["completion"] for line in capsys.readouterr().out.splitlines()]
    for prompt, completion in zip(prompts, batch, strict=True):
        capsys.readouterr()
        assert cli.main(["generate", *map(str, (*words, "--prompt", prompt))]) == 0
        assert capsys.readouterr().out == completion + "\n"

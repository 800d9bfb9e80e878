"""sft.py on a CUDA device: the guide's command, and what is held in which precision."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sft_guide import GUIDE, write_clone

pytest.importorskip("trl")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.ranks,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PROJECT = Path(__file__).resolve().parents[2]
UNQUANTISED = [word for word in GUIDE if word != "--load_in_4bit"]


@pytest.fixture
def work(tmp_path: Path, tiny_model: Path) -> Path:
    folder = tmp_path / "peft-demo"
    write_clone(folder / "datasets" / "openassistant-guanaco")
    (tmp_path / "Llama-2-7b-hf").symlink_to(tiny_model)
    return folder


def run(words: list[str], work: Path, environment: dict[str, str], ranks: int = 1) -> str:
    """Run sft.py under torchrun, as the guide does, with a larger learning rate."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nnodes", "1"]
    command += ["--nproc_per_node", str(ranks), str(PROJECT / "sft.py"), *words]
    done = subprocess.run(
        [*command, "--learning_rate=5e-3"],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(work: Path, steps: int) -> None:
    """The loss fell, and the adapter is held in float32 although it is multiplied in bfloat16."""
    output = work.parent / "Llama-2-7b-my-lora"
    metrics = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == steps
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.01
    weights = load_file(output / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


@pytest.mark.parametrize("words", [GUIDE, UNQUANTISED], ids=["4bit", "bfloat16"])
def test_the_guides_command_with_one_process(words, work, environment):
    printed = run(words, work, environment)
    assert "--> --bf16 true: " in printed
    assert "--> --dtype bfloat16: " in printed
    assert "--> global batch: 128 rows (64 per micro-batch, 2 micro-batches, 1 ranks)" in printed
    assert "--> peak memory of rank 0: " in printed
    check(work, steps=3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_guides_command_on_two_devices(work, environment):
    printed = run(GUIDE, work, environment, ranks=2)
    assert "--> global batch: 256 rows (64 per micro-batch, 2 micro-batches, 2 ranks)" in printed
    check(work, steps=3)

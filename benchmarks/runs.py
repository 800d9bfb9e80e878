"""What the benchmarks of whole commands share: a model of a shape, a timed run, a report."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "transformers", "peft", "accelerate", "triton", "bitsandbytes", "liger-kernel")
WARM_UP = 4


def torchrun(devices: int = 1) -> list[str]:
    """Return what Python runs to start a script on each of some devices of this machine."""
    return ["-m", "torch.distributed.run", "--nnodes", "1", "--nproc_per_node", str(devices)]


SHAPES = {  # hidden size, MLP, layers, heads, key-value heads, vocabulary
    "llama2-7b": (4096, 11008, 32, 32, 32, 32000),
    "llama3-8b": (4096, 14336, 32, 32, 8, 128256),
    "llama2-13b": (5120, 13824, 40, 40, 40, 32000),
    "llama3-70b": (8192, 28672, 80, 64, 8, 128256),
    "tiny": (64, 128, 2, 4, 2, 32000),  # to try a benchmark without a GPU
}
LONG = 8192
"""Positions of the shapes of Llama 3; the others have 4,096."""


def make_model(
    folder: Path, tokenizer: Path, layers: int | None = None, shape: str = "llama2-7b"
) -> Path:
    """Write a model of a Llama's shape, whole or its first layers, with random bfloat16 weights."""
    if (folder / "model.safetensors.index.json").exists():
        return folder
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    hidden, mlp, depth, heads, kv_heads, vocabulary = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers or depth,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        max_position_embeddings=LONG if shape.startswith("llama3") else 4096,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder, max_shard_size="5GB" if hidden > 64 else "4MB")
    AutoTokenizer.from_pretrained(tokenizer, local_files_only=True).save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    return folder


def time_finetuning(
    name: str, command: Sequence[str], output: Path, flags: dict[str, Any]
) -> dict[str, Any]:
    """Run ``finetuning.py`` and read its metrics.

    Args:
        name: of the result.
        command: what Python runs: torchrun or not, the script, and its flags.
        output: folder for what the run writes.
        flags: further flags, by name.

    Returns:
        The median speed and wait for data over the steps after warm-up, the peak memory, and the
        loss of the first and the last of them.
    """
    every = flags | {"output_dir": output}
    run([*command, *(str(word) for flag in every.items() for word in (f"--{flag[0]}", flag[1]))])
    lines = (output / "metrics.jsonl").read_text().splitlines()
    steps = [step for step in map(json.loads, lines) if "tokens_per_second" in step][WARM_UP:]
    return {
        "name": name,
        "tokens_per_second": round(median(step["tokens_per_second"] for step in steps)),
        "peak_gib": round(max(step["memory_gib"] for step in steps), 1),
        "data_seconds_per_step": round(mean(step["data_seconds"] for step in steps), 4),
        "first_loss": steps[0]["loss"],
        "last_loss": steps[-1]["loss"],
    }


def run(command: Sequence[str]) -> str:
    """Run Python on ``command`` in the checkout, showing what it prints; return that.

    Raises:
        RuntimeError: if it fails.
    """
    print("$ python", *command, flush=True)
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "8"}
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        print(line, end="", flush=True)
    if process.wait():
        raise RuntimeError(f"exit code {process.returncode}: {command}")
    return "".join(printed)


def call(words: Sequence[object], log: Path, device: int = 0, threads: int = 4) -> None:
    """Run Python on some words and one device, its output to the end of a file.

    Raises:
        RuntimeError: with the last line that it printed, if it fails.
    """
    variables = os.environ | {
        "CUDA_VISIBLE_DEVICES": str(device),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": python_path(),
    }
    with log.open("a") as file:
        command = [sys.executable, *map(str, words)]
        process = subprocess.run(command, cwd=ROOT, env=variables, stdout=file, stderr=file)
    if process.returncode:
        raise RuntimeError(last_line(log))


def python_path() -> str:
    """Return what ``PYTHONPATH`` is for a process that imports the checkout."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def last_line(log: Path) -> str:
    """Return the last line of a log that has a word and is not a progress bar's."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    said = [line for line in lines if re.search(r"\w", line) and not re.search(r"\d%\|", line)]
    return said[-1][-300:] if said else "nothing printed"


def report(results: list[dict[str, Any]], out: Path) -> None:
    """Write the results as JSON with the machine and versions, and print them as a table."""
    where = environment()
    out.write_text(json.dumps({"environment": where, "results": results}, indent=2) + "\n")
    print("\n" + ", ".join(f"{key} {value}" for key, value in where.items()))
    for result in results:
        if "error" in result:
            print(f"{result['name']:<44} {result['error']}")
            continue
        print(
            f"{result['name']:<44} {result['tokens_per_second']:>8,} tok/s"
            f" {result['peak_gib']:>7} GiB"
        )


def environment(packages: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Return the machine, the versions and the commit that results hold for."""
    device = f"CPU, {os.cpu_count()} cores"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    return {
        "device": device,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        **{package: _version(package) for package in packages},
        "commit": commit(),
    }


def commit() -> str | None:
    """Return the checkout's commit; where git does not know it, the variable ``COMMIT``."""
    if "COMMIT" in os.environ or not shutil.which("git"):
        return os.environ.get("COMMIT")
    words = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

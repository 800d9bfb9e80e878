"""Times the guide's LoRA command on one CUDA device, beside unmodified llama-recipes.

The model has Llama-2-7B's shape and random bfloat16 weights (speed does not depend on the values);
the data are the real grammar CSVs. Each run is a process of its own. Prints a table, writes JSON:

    python benchmarks/seed_command.py --tokenizer DIR --work DIR --out FILE.json
"""

import argparse
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
SEED_FLAGS = [
    *("--use_peft", "--peft_method", "lora", "--use_fast_kernels"),
    *("--batch_size_training", "2", "--gradient_accumulation_steps", "2"),
    *("--dataset", "grammar_dataset"),
]
PACKAGES = ("torch", "transformers", "peft", "accelerate", "triton")
WARM_UP = 4


def main() -> None:
    """Make the model, run each variant, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a Llama tokenizer")
    parser.add_argument("--work", type=Path, required=True, help="folder for the model and outputs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--steps", type=int, default=24, help="optimiser steps a run")
    parser.add_argument("--upstream", type=Path, help="folder of the unpacked, unmodified wheel")
    options = parser.parse_args()
    model = make_model(options.work / "llama-7b-shaped", options.tokenizer)
    launch = ["-m", "torch.distributed.run", "--nnodes", "1", "--nproc_per_node", "1"]
    results = []
    if options.upstream:
        command = [*launch, str(ROOT / "benchmarks" / "upstream_baseline.py"), str(model)]
        results.append(time_upstream([*command, str(options.upstream), str(2 * options.steps)]))
    for name, command in {
        "torchrun --enable_fsdp": [*launch, "finetuning.py", "--enable_fsdp", *SEED_FLAGS],
        "python": ["finetuning.py", *SEED_FLAGS],
        "python, pure bf16": ["finetuning.py", *SEED_FLAGS, "--pure_bf16"],
    }.items():
        results.append(time_ours(name, command, model, options))
    report(results, options.out)


def make_model(folder: Path, tokenizer: Path) -> Path:
    """Write a model of Llama-2-7B's shape with random bfloat16 weights, once."""
    if (folder / "model.safetensors.index.json").exists():
        return folder
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=32000,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder, max_shard_size="5GB")
    AutoTokenizer.from_pretrained(tokenizer, local_files_only=True).save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    return folder


def time_ours(
    name: str, command: list[str], model: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Run the fork's command and read its metrics."""
    output = options.work / name.replace(" ", "-").replace(",", "")
    flags = ["--model_name", model, "--output_dir", output, "--max_train_step", options.steps]
    run([*command, *map(str, flags)])
    lines = (output / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines][WARM_UP:]
    return {
        "name": f"llama_recipes_local, {name}",
        "tokens_per_second": round(median(step["tokens_per_second"] for step in steps)),
        "peak_gib": round(max(step["memory_gib"] for step in steps), 1),
        "first_loss": steps[0]["loss"],
        "last_loss": steps[-1]["loss"],
    }


def time_upstream(command: list[str]) -> dict[str, Any]:
    """Run the baseline, which prints its result as the last line of JSON."""
    printed = run(command)
    line = next(line for line in reversed(printed.splitlines()) if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


def run(command: list[str]) -> str:
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


def report(results: list[dict[str, Any]], out: Path) -> None:
    """Write the results as JSON with the machine and versions, and print them as a table."""
    environment = {
        "device": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        **{package: metadata.version(package) for package in PACKAGES},
    }
    out.write_text(json.dumps({"environment": environment, "results": results}, indent=2) + "\n")
    print("\n" + ", ".join(f"{key} {value}" for key, value in environment.items()))
    for result in results:
        print(
            f"{result['name']:<44} {result['tokens_per_second']:>8,} tok/s"
            f" {result['peak_gib']:>7} GiB"
        )


if __name__ == "__main__":
    main()

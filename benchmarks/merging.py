"""Times and weighs ``merge`` of an adapter into a model of Llama-2-7B's shape.

    python benchmarks/merging.py --out benchmarks/results/merging.json

The base model and the adapter are written first, tensor by tensor; with the result that takes
28 GB of disk in ``--work``. Memory is the peak of the command's process: all that is resident, and
what is its own, which leaves out the base model's files that are mapped and can be dropped.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import peft
import psutil
import torch
from transformers import LlamaConfig

from llama_recipes_local.model_folders import save
from llama_recipes_local.models.deferred import empty_model

SAMPLE_SECONDS = 0.05
PACKAGES = ("torch", "transformers", "peft", "safetensors")
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "LoRA, r=8 on q and v": {"r": 8, "target_modules": ["q_proj", "v_proj"]},
    "DoRA, r=64 on every linear layer": {
        "r": 64,
        "target_modules": ALL_LINEAR,
        "use_dora": True,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder for the models (a temporary one)")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        work = Path(folder)
        config = make_base(work / "base", args.layers)
        runs = [measure(work, config, name) for name in ADAPTERS]
    report = {
        "hardware": hardware(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "runs": runs,
    }
    print(json.dumps(report, indent=2))
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def make_base(folder: Path, layers: int) -> LlamaConfig:
    """Write a model with random bfloat16 weights."""
    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=layers,
        num_attention_heads=32,
        vocab_size=32000,
        dtype="bfloat16",
    )
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    planned = {
        name: torch.empty(tensor.shape, dtype=torch.bfloat16, device="meta")
        for name, tensor in empty_model(config).named_parameters()
    }
    save.write_weights(folder, planned, lambda name: random_like(planned[name], 0.02))
    return config


def make_adapter(folder: Path, base: Path, config: LlamaConfig, name: str) -> Path:
    """Write an adapter with random float32 weights."""
    settings = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **ADAPTERS[name])
    adapted = peft.get_peft_model(empty_model(config), settings, low_cpu_mem_usage=True)
    adapted.active_peft_config.base_model_name_or_path = str(base)
    parameters = dict(adapted.named_parameters())
    drawn = {
        key: random_like(tensor, 0.01) for key, tensor in parameters.items() if tensor.requires_grad
    }
    adapted.save_pretrained(str(folder), state_dict=drawn)
    return folder


def random_like(tensor: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype).normal_(0, scale)


def measure(work: Path, config: LlamaConfig, name: str) -> dict[str, object]:
    """Merge one adapter in a process of its own, and remove what came of it."""
    base = work / "base"
    adapter = make_adapter(work / "adapter", base, config, name)
    command = [sys.executable, "-m", "llama_recipes_local", "merge"]
    command += ["--adapter", str(adapter), "--model", str(base), "--out", str(work / "out")]
    resident = own = 0
    started = time.perf_counter()
    with subprocess.Popen(command) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                memory = watched.memory_full_info()
            except psutil.Error:
                break
            resident, own = max(resident, memory.rss), max(own, memory.uss)
            time.sleep(SAMPLE_SECONDS)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{command} failed")
    shards = [path.stat().st_size for path in (work / "out").glob("*.safetensors")]
    subprocess.run(["rm", "-r", str(work / "out"), str(adapter)], check=True)
    return {
        "adapter": name,
        "model_gb": round(sum(shards) / 1e9, 2),
        "largest_file_gb": round(max(shards) / 1e9, 2),
        "seconds": round(seconds, 1),
        "peak_resident_gb": round(resident / 1e9, 2),
        "peak_own_gb": round(own / 1e9, 2),
        "resident_above_a_file_gb": round((resident - max(shards)) / 1e9, 2),
    }


def hardware() -> str:
    return f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"


if __name__ == "__main__":
    main()

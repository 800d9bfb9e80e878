"""Compares --low_cpu_fsdp with the ordinary way to load a model and shard it, on the CPU.

    python benchmarks/low_cpu_loading.py --out benchmarks/results/low-cpu-loading.json

A model whose files hold random float16 weights is loaded in bfloat16, as a Llama 2 is on CUDA,
gets an adapter, and is sharded by 2 and by 4 ranks. Memory is a rank's peak of resident memory
above what it had after its imports, sampled; it counts the pages of a file that are mapped. Bytes
read are those of the slices that a rank takes out of the files. What all ranks together cause to
come from the disk, from a cold page cache, is the system's count.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

RANKS = (2, 4)
WAYS = {"ordinary": False, "low_cpu_fsdp": True}
SAMPLE_SECONDS = 0.002
MB = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rank", nargs=2, metavar=("MODEL", "WAY"), help="measure in this rank")
    args = parser.parse_args()
    if args.rank:
        load_and_shard(Path(args.rank[0]), args.rank[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
        runs = [measure(Path(folder), ranks, way) for ranks in RANKS for way in WAYS]
    report = {"hardware": hardware(), "versions": versions(), "model_mb": size / MB, "runs": runs}
    print(json.dumps(report, indent=2))
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def make_model(folder: Path) -> None:
    """Save a Llama of 200 million parameters, in files of 50 MB."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=16_000,
        hidden_size=1_024,
        intermediate_size=2_816,
        num_hidden_layers=13,
        num_attention_heads=16,
    )
    LlamaForCausalLM(config).half().save_pretrained(folder, max_shard_size="50MB")


def measure(folder: Path, ranks: int, way: str) -> dict[str, Any]:
    """Load on all ranks at once, from a cold page cache."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(ranks), __file__, "--rank", str(folder), way]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    said = [line.partition("rank: ")[2] for line in done.stdout.splitlines() if "rank: " in line]
    by_rank = [json.loads(line) for line in said]
    disk = sum(rank.pop("disk_mb") for rank in by_rank)
    return {"ranks": ranks, "way": way, "disk_mb": disk, "by_rank": by_rank}


def load_and_shard(folder: Path, way: str) -> None:
    """Load, adapt and shard a model as ``main`` does, and print what it took."""
    from llama_recipes_local import adapters, models, parallel
    from llama_recipes_local.run import activate
    from llama_recipes_local.run.resolution import resolve

    parallel.setup()
    flags = {"model_name": str(folder), "use_peft": True, "enable_fsdp": True, "dtype": "bfloat16"}
    run = resolve(flags | {"low_cpu_fsdp": WAYS[way]})
    layers = parallel.get_policies(run.fsdp, parallel.rank())[1]
    with activate(run), Slices() as slices, Peak() as peak:
        model: Any = models.LlamaForCausalLM.from_pretrained(folder)
        model = adapters.get_peft_model(model, adapters.generate_peft_config(run.train, {}))
        model = parallel.FullyShardedDataParallel(
            model, layers, sync_module_states=run.train.low_cpu_fsdp
        )
    share = sum(p.to_local().nbytes for p in model.parameters())
    result = {
        "peak_mb": peak.above_start / MB,
        "read_mb": slices.bytes / MB,
        "share_mb": share / MB,
        "disk_mb": peak.read / MB,
    }
    print(f"rank: {json.dumps(result)}\n", end="", flush=True)
    parallel.barrier()
    parallel.cleanup()


class Slices:
    """Counts the bytes that are taken out of safetensors files, by transformers or by this fork."""

    MODULES = ("transformers.modeling_utils", "llama_recipes_local.parallel.shard_loading")

    def __init__(self) -> None:
        self.bytes = 0

    def __enter__(self) -> "Slices":
        for module in map(importlib.import_module, self.MODULES):
            vars(module)["safe_open"] = self._counted(vars(module)["safe_open"])
        return self

    def __exit__(self, *exception: object) -> None:
        """The process ends with the measurement."""

    def _counted(self, safe_open: Any) -> Any:
        slices = self

        class Slice:
            def __init__(self, inner: Any) -> None:
                self.inner = inner

            def __getitem__(self, rows: Any) -> Any:
                tensor = self.inner[rows]
                slices.bytes += tensor.nbytes
                return tensor

            def __getattr__(self, name: str) -> Any:
                return getattr(self.inner, name)

        class File:
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                self.inner = safe_open(*args, **kwargs)

            def __enter__(self) -> "File":
                self.inner.__enter__()
                return self

            def __exit__(self, *exception: object) -> None:
                self.inner.__exit__(*exception)

            def get_slice(self, name: str) -> Slice:
                return Slice(self.inner.get_slice(name))

            def __getattr__(self, name: str) -> Any:
                return getattr(self.inner, name)

        return File


class Peak:
    """Samples this process's resident memory, and counts what it reads from the disk."""

    def __enter__(self) -> "Peak":
        self._process = psutil.Process()
        self._start = self._highest = self._process.memory_info().rss
        self._read = self._process.io_counters().read_bytes
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()
        self.above_start = self._highest - self._start
        self.read = self._process.io_counters().read_bytes - self._read

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self._highest = max(self._highest, self._process.memory_info().rss)


def hardware() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, no GPU"


def versions() -> dict[str, str]:
    packages = ("torch", "transformers", "peft", "safetensors")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


if __name__ == "__main__":
    main()

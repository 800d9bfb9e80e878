"""Times and weighs the way from a file to the first batch, at growing numbers of rows.

    python benchmarks/data_pipeline.py --tokenizer DIR --out benchmarks/results/data-pipeline.json

For each number of rows a process of its own tokenises a synthetic file into an empty cache, packs
it and takes a batch; a second one does the same from the cache. Memory is the sum over the
processes of what each does not share, sampled while they run.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import psutil

SIZES = (10_000, 100_000, 1_000_000)
WORDS = ("she", "go", "to", "the", "school", "yesterday", "and", "have", "many", "book", "that")
SAMPLE_SECONDS = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True, type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", type=Path, help="measure one file in this process")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(first_batch(args.one, args.tokenizer)))
        return
    with tempfile.TemporaryDirectory() as folder:
        results = [measure(Path(folder), size, args.tokenizer) for size in args.sizes]
    report = {"hardware": hardware(), "versions": versions(), "packing": packing(), "runs": results}
    print(json.dumps(report, indent=2))
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def first_batch(file: Path, tokenizer_folder: Path) -> dict[str, float]:
    """Return the seconds from the flags to tokens, and to the first batch, imports apart."""
    from torch.utils.data import DataLoader

    from llama_recipes_local.configs import local_dataset, train_config
    from llama_recipes_local.data.concatenator import ConcatDataset
    from llama_recipes_local.datasets.run_data import prepare_data
    from llama_recipes_local.models.loading import load_tokenizer
    from llama_recipes_local.run import Run
    from llama_recipes_local.utils.config_utils import get_dataloader_kwargs

    train = train_config(dataset="local_dataset", tokenizer_name=str(tokenizer_folder))
    data = local_dataset(data_path=str(file), validation_path=str(file.with_suffix(".val.jsonl")))
    started = time.perf_counter()
    samples = prepare_data(Run({}, train=train, dataset=data)).splits["train"]
    tokens = time.perf_counter()
    packed = ConcatDataset(samples, train.context_length)
    packing_done = time.perf_counter()
    keywords = get_dataloader_kwargs(train, packed, load_tokenizer(train), "train")
    next(iter(DataLoader(packed, num_workers=0, **keywords)))
    ended = time.perf_counter()
    return {
        "to_tokens_seconds": round(tokens - started, 3),
        "packing_seconds": round(packing_done - tokens, 3),
        "to_first_batch_seconds": round(ended - started, 3),
        "positions_used": round(packed.used, 5),
    }


def measure(folder: Path, size: int, tokenizer: Path) -> dict[str, object]:
    """Measure one number of rows, without and with the cache."""
    file = write_rows(folder / f"rows{size}.jsonl", size)
    write_rows(file.with_suffix(".val.jsonl"), 100)
    environment = os.environ | {"LLAMA_RECIPES_CACHE": str(folder / f"cache{size}")}
    command = [sys.executable, __file__, "--tokenizer", str(tokenizer), "--one", str(file)]
    made, cached = (watched(command, environment) for _ in range(2))
    return {
        "rows": size,
        "rows_per_second": round(size / made["to_tokens_seconds"]),
        "from_nothing": made,
        "from_cache": cached,
    }


def watched(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Run a command that prints a line of JSON last, and add its peak memory."""
    peak = 0
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, unshared(process.pid))
            time.sleep(SAMPLE_SECONDS)
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    if process.returncode:
        raise SystemExit(f"{command} failed")
    return json.loads(lines[-1]) | {"peak_memory_gib": round(peak / 2**30, 3)}


def unshared(pid: int) -> int:
    """Return the memory of a process and its children, shared pages divided among them."""
    total = 0
    try:
        family = psutil.Process(pid)
        for process in [family, *family.children(recursive=True)]:
            total += process.memory_full_info().pss
    except psutil.NoSuchProcess:
        pass
    return total


def write_rows(path: Path, size: int) -> Path:
    """Write rows of prompt and completion, of the grammar data's lengths."""
    draw = random.Random(size)
    with path.open("w", encoding="utf-8") as file:
        for number in range(size):
            text = " ".join(draw.choices(WORDS, k=draw.randint(5, 50)))
            row = {"prompt": f"Correct row {number}: {text}\n", "completion": f"{text}."}
            file.write(json.dumps(row) + "\n")
    return path


def packing(documents: int = 1_000_000) -> dict[str, float]:
    """Return the seconds that packing many lengths takes."""
    import numpy as np

    from llama_recipes_local.data.packing import pack

    draw = np.random.default_rng(0)
    cases = {
        "short documents": (np.clip(draw.lognormal(4.2, 0.55, documents), 20, 1217), 4096),
        "any length": (draw.integers(1, 4097, documents), 4096),
        "long rows": (draw.integers(1, 20_000, documents), 131_072),
        "long rows, any length": (draw.integers(1, 131_073, documents), 131_072),
    }
    seconds = {}
    for name, (lengths, size) in cases.items():
        started = time.perf_counter()
        pack(lengths.astype(np.int32), size, 0)
        seconds[name] = round(time.perf_counter() - started, 3)
    return seconds


def hardware() -> str:
    return f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, no GPU"


def versions() -> dict[str, str]:
    packages = ("torch", "transformers", "tokenizers", "pyarrow", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


if __name__ == "__main__":
    main()

"""Times unmodified llama-recipes with FSDP, as its users run it; ``seed_command.py`` starts it.

Two things stand outside the wheel: the name that accelerate has dropped is put back, and the CSV is
read by Python's csv module, so that ``datasets`` need not be installed. Neither is in a timed step.

    torchrun --nproc_per_node 1 upstream_baseline.py MODEL UNPACKED_WHEEL MICRO_BATCHES
"""

import csv
import json
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import accelerate.utils
import torch
from torch.utils.data import DataLoader

WARM_UP = 8


class Rows(list[dict[str, str]]):
    """Rows as upstream asks a data set for them."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self), 2


def load_dataset(kind: str, data_files: dict[str, list[str]], **options: Any) -> dict[str, Rows]:
    """Read the CSV files as ``datasets.load_dataset`` would."""
    with open(data_files["train"][0], encoding="utf-8-sig", newline="") as file:
        return {"train": Rows(csv.DictReader(file))}


class Clock:
    """Notes when each training micro-batch is asked for; a step is over when the next one is."""

    def __init__(self) -> None:
        self.ticks: list[tuple[float, int]] = []

    def watch(self, loader: DataLoader[Any], batches: Iterator[Any]) -> Iterator[Any]:
        """Pass the batches of a loader on."""
        for batch in batches:
            torch.cuda.synchronize()
            self.ticks.append((time.perf_counter(), batch["input_ids"].numel()))
            yield batch

    def tokens_per_second(self) -> int:
        """Return the median over pairs of micro-batches, an optimiser step each."""
        ticks = self.ticks[WARM_UP:]
        pairs = zip(ticks[:-2:2], ticks[2::2], strict=False)
        return round(median(2 * begun[1] / (done[0] - begun[0]) for begun, done in pairs))


def main() -> None:
    """Run upstream's main on the seed command's flags and print the result."""
    model, wheel, micro_batches = sys.argv[1:4]
    accelerate.utils.is_ccl_available = lambda: False
    stand_in = types.ModuleType("datasets")
    stand_in.load_dataset = load_dataset
    stand_in.Dataset = stand_in.DatasetInfo = object
    sys.modules["datasets"] = stand_in
    sys.path.insert(0, wheel)

    clock = Clock()
    plain = DataLoader.__iter__
    DataLoader.__iter__ = lambda loader: clock.watch(loader, plain(loader))
    from llama_recipes.finetuning import main as upstream_main

    data = str(Path(wheel) / "llama_recipes/datasets/grammar_dataset/gtrain_10k.csv")
    upstream_main(
        model_name=model,
        enable_fsdp=True,
        use_peft=True,
        peft_method="lora",
        use_fast_kernels=True,
        batch_size_training=2,
        gradient_accumulation_steps=2,
        dataset="grammar_dataset",
        max_train_step=int(micro_batches),
        num_epochs=1,
        run_validation=False,
        save_model=False,
        output_dir="unused",
        **{"grammar_dataset.train_split": data, "grammar_dataset.test_split": data},
    )
    result = {
        "name": "llama-recipes 0.0.4.post1, torchrun --enable_fsdp",
        "tokens_per_second": clock.tokens_per_second(),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
    }
    print("RESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

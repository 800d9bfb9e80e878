"""What ``llama-recipes-local inspect`` prints and draws."""

import os
import sys
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from llama_recipes_local.data.concatenator import ConcatDataset
from llama_recipes_local.data.tokens import TokenRows
from llama_recipes_local.datasets.run_data import PARTS, RunData, prepare_data
from llama_recipes_local.inspection.lengths import histogram_text, save_histogram
from llama_recipes_local.inspection.rows import (
    COLOUR,
    PLAIN,
    Style,
    legend,
    packed_layout,
    row_text,
)
from llama_recipes_local.models.loading import load_tokenizer
from llama_recipes_local.preflight import preflight_data
from llama_recipes_local.run import Run, activate


def inspect(*arguments: Any, rows: int = 3, png: str = "lengths.png", **flags: Any) -> None:
    """Show what the model will see of a data set. Takes the flags of finetuning.py.

    Args:
        *arguments: none; every setting has a flag.
        rows: how many training rows to show.
        png: the file that the histogram of lengths is drawn in; empty draws none.
        **flags: those of finetuning.py, --dataset and --model_name among them.

    Raises:
        UsageError: if the data or the tokenizer cannot be used.
    """
    run = preflight_data(arguments, flags)
    with activate(run):
        run.data = prepare_data(run)
        tokenizer = load_tokenizer(run.train)
        show(run, run.data, tokenizer, rows, _style())
        if png:
            print(f"\n{_draw(run, run.data, Path(png))}")


def show(
    run: Run, data: RunData, tokenizer: PreTrainedTokenizerBase, number: int, style: Style
) -> None:
    """Print the audit, some rows, a packed row and the lengths."""
    print(f"\n{data}")
    train = data.splits["train"]
    if not isinstance(train, TokenRows):
        return
    print(f"\nthe first rows of the training data: {legend(style)}")
    for index in range(min(number, len(train))):
        row = train[index]
        print(f"\n--- row {index}: {len(row['input_ids'])} tokens")
        print(row_text(row, tokenizer, style))
    if run.train.batching_strategy == "packing":
        packed = ConcatDataset(train, run.train.context_length)
        print(f"\npacked into {len(packed)} rows, {packed.used:.2%} of positions used; the first:")
        print(packed_layout(packed[0], run.train.context_length, style))
    print("\nlengths of the training rows")
    print(histogram_text(train.lengths))


def _draw(run: Run, data: RunData, path: Path) -> Path:
    lengths = {
        PARTS[part]: split.lengths
        for part, split in data.splits.items()
        if isinstance(split, TokenRows) and len(split)
    }
    target = path.expanduser().resolve()
    save_histogram(lengths, run.train.context_length, target)
    return target


def _style() -> Style:
    return COLOUR if sys.stdout.isatty() and "NO_COLOR" not in os.environ else PLAIN

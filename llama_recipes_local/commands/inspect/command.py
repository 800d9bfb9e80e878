"""``llama-recipes-local inspect``: prints rows, a packed row, the audit and a length histogram."""

import os
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.commands.inspect.length_histogram import histogram_text, save_histogram
from llama_recipes_local.commands.inspect.row_display import (
    COLOUR,
    PLAIN,
    Style,
    legend,
    packed_layout,
    row_text,
)
from llama_recipes_local.console import verbatim_output
from llama_recipes_local.data.concatenator import ConcatDataset
from llama_recipes_local.data.streaming import SampleStream
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.datasets.prepared_data import PART_NAMES, RunData
from llama_recipes_local.datasets.run_data import prepare_data
from llama_recipes_local.errors import Problem, refuse
from llama_recipes_local.models.loading import load_tokenizer
from llama_recipes_local.preflight import preflight_data
from llama_recipes_local.run import Run, activate
from llama_recipes_local.storage.names import refuse_name


def inspect(*arguments: object, rows: int = 3, png: str = "", **flags: Any) -> None:
    """Show what the model will see of a data set. Takes the flags of finetuning.py.

    Args:
        *arguments: none; every setting has a flag.
        rows: the number of training rows to show.
        png: the file that the length histogram is saved to; empty for none.
        **flags: those of finetuning.py, --dataset and --model_name among them.

    Raises:
        UsageError: if a flag is wrong, or the data or the tokenizer cannot be used.
    """
    refuse(_flag_problems(rows, png))
    refuse_name(_png_path(png), "--png")
    run = preflight_data(arguments, flags, others=("rows", "png"))
    with activate(run):
        run.data = prepare_data(run)
        tokenizer = load_tokenizer(run.train)
        show(run, run.data, tokenizer, rows, _style())
        lengths = _lengths(run.data)
        if png and lengths:
            save_histogram(lengths, run.train.context_length, _png_path(png))
            print(f"\n{_png_path(png)}")


def show(
    run: Run, data: RunData, tokenizer: PreTrainedTokenizerBase, number: int, style: Style
) -> None:
    """Print the audit, some rows, a packed row and the lengths.

    For a stream these are rows only; rows for the user's own collator are not shown.
    """
    print(f"\n{data}")
    train = data.splits["train"]
    if not isinstance(train, (TokenRows, SampleStream)):
        return
    _print_styled(f"\nthe first rows of the training data: {legend(style)}")
    rows = train.open_pass(0) if isinstance(train, SampleStream) else train
    for index, row in enumerate(islice(rows, number)):
        last = row["input_ids"][-1]
        end = f"the last is {last} {tokenizer.convert_ids_to_tokens(last)!r}"
        print(f"\n--- row {index}: {len(row['input_ids'])} tokens, {end}")
        _print_styled(row_text(row, tokenizer, style))
    if isinstance(train, SampleStream):
        return
    if run.train.batching_strategy == "packing":
        packed = ConcatDataset(train, run.train.context_length)
        print(f"\npacked into {len(packed)} rows, {packed.used:.2%} of positions used")
        print("the first, to scale, where # and = are documents by turns:")
        _print_styled(packed_layout(packed[0], run.train.context_length, style))
    print("\nlengths of the training rows")
    print(histogram_text(train.lengths))


def _print_styled(text: str) -> None:
    """Print a text with the escapes of a style; what it shows is printable already."""
    with verbatim_output():
        print(text)


def _flag_problems(rows: object, png: str) -> list[Problem]:
    problems = []
    if type(rows) is not int or rows < 0:
        fix = "--rows 3"
        problems.append(Problem(f"--rows {rows}", "it must be an integer of at least 0", fix))
    path = _png_path(png)
    if png and (path.suffix.lower() != ".png" or not os.access(path.parent, os.W_OK)):
        why = f"it must be a .png file in a writable folder ({path.parent})"
        problems.append(Problem(f"--png {png}", why, "name another: --png FILE.png"))
    return problems


def _png_path(png: str) -> Path:
    return Path(str(png)).expanduser().resolve()


def _lengths(data: RunData) -> dict[str, npt.NDArray[np.int32]]:
    return {
        PART_NAMES[part]: split.lengths
        for part, split in data.splits.items()
        if isinstance(split, TokenRows) and len(split)
    }


def _style() -> Style:
    return COLOUR if sys.stdout.isatty() and "NO_COLOR" not in os.environ else PLAIN

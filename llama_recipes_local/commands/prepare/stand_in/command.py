"""Makes the stand-in once, and again when its data or settings have changed."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llama_recipes_local.commands.prepare.making_once import missing_or_stale
from llama_recipes_local.commands.prepare.stand_in.settings import StandInSettings
from llama_recipes_local.console import no_loading_bars
from llama_recipes_local.errors import refusal
from llama_recipes_local.records.any_format import records
from llama_recipes_local.storage.publishing import published_folder

RECORD = "stand_in.json"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
VERSION = 1
COLUMNS = ("input", "target")
WHAT_IT_IS = (
    "A stand-in: a small Llama pretrained for about a minute on the grammar data's sentences. "
    "It shows that fine-tuning works, and is no language model to use."
)
HOW_TO_NAME_A_MODEL = (
    "Name a real model with: make finetune MODEL=/path/to/Llama-2-7b-hf "
    "(finetuning.py: --model_name /path/to/Llama-2-7b-hf)"
)


def make_stand_in(folder: Path, data: Path, settings: StandInSettings | None = None) -> bool:
    """Make the stand-in in ``folder`` unless an up-to-date one exists.

    Args:
        folder: its folder, which appears whole or not at all.
        data: a CSV file with the columns ``input`` and ``target``.
        settings: sizes and schedule; None means the defaults.

    Returns:
        Whether it was made.

    Raises:
        UsageError: if the data cannot be read, or ``folder`` has something else.
    """
    settings = settings or StandInSettings()
    pairs = _read(data)
    record = {
        "what": WHAT_IT_IS,
        "version": VERSION,
        "data_sha256": hashlib.sha256(data.read_bytes()).hexdigest(),
        "settings": asdict(settings),
    }
    reason = missing_or_stale(folder, RECORD, FILES, record)
    if reason is None:
        print(f"--> the stand-in model is in {folder}")
        return False
    print(f"--> making the stand-in model in {folder}: {reason}\n    {WHAT_IT_IS}")
    with published_folder(folder) as draft:
        _write(draft, pairs, settings, record)
    print(f"--> the stand-in model is in {folder}\n    {HOW_TO_NAME_A_MODEL}")
    return True


def _read(data: Path) -> list[tuple[str, str]]:
    pairs = [(row["input"], row["target"]) for _, row in records(data, COLUMNS, "csv")]
    if any(text.strip() and target.strip() for text, target in pairs):
        return pairs
    raise refusal(
        f"{data} has no row with {' and '.join(COLUMNS)}",
        "rows in which one of them is blank are skipped",
        "name another file: --data FILE",
    )


def _write(
    folder: Path, pairs: list[tuple[str, str]], settings: StandInSettings, record: dict[str, Any]
) -> None:
    from llama_recipes_local.commands.prepare.stand_in.pretraining import pretrain
    from llama_recipes_local.commands.prepare.stand_in.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(pairs, settings.vocabulary, settings.positions)
    sentences = list(dict.fromkeys(target for _, target in pairs if target.strip()))
    model = pretrain(sentences, tokenizer, settings, folder)
    with no_loading_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", "utf-8")

"""Each data set from its local files: where they are looked for, how a row becomes a sample.

A loader takes ``(dataset_config, tokenizer, split)``, as upstream's do; ``split`` is the
configuration's ``train_split`` or ``test_split``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from llama_recipes_local import paths
from llama_recipes_local._upstream import load
from llama_recipes_local.datasets import readers
from llama_recipes_local.datasets.tokenization import Sample, encode_pairs, encode_prefixed
from llama_recipes_local.prompts import format_prompt

SAMSUM_FILES = {"train": "train.json", "validation": "val.json", "test": "test.json"}
TOXICCHAT_FILES = {
    "train": "toxic-chat_annotation_train.csv",
    "test": "toxic-chat_annotation_test.csv",
}


def get_grammar_dataset(
    dataset_config: Any, tokenizer: PreTrainedTokenizerBase, csv_name: str | None = None
) -> list[Sample]:
    """Read a CSV file of wrong and corrected sentences, columns ``input`` and ``target``."""
    path = paths.resolve(csv_name or dataset_config.train_split)
    rows = ((row["input"], row["target"]) for row in readers.read_csv(path))
    pairs = _without_blanks(rows, path)
    return encode_pairs(
        tokenizer, [(format_prompt("grammar_dataset", text), target) for text, target in pairs]
    )


def get_samsum_dataset(
    dataset_config: Any, tokenizer: PreTrainedTokenizerBase, split: str
) -> list[Sample]:
    """Read dialogues and summaries from the corpus's JSON files."""
    path = samsum_file(dataset_config, split)
    rows = ((row["dialogue"], row["summary"]) for row in readers.read_json(path))
    pairs = _without_blanks(rows, path)
    return encode_pairs(
        tokenizer, [(format_prompt("samsum_dataset", text), summary) for text, summary in pairs]
    )


def get_alpaca_dataset(
    dataset_config: Any, tokenizer: PreTrainedTokenizerBase, partition: str = "train"
) -> list[Sample]:
    """Read instructions from a JSON list; its first 5% is for validation, as upstream has it."""
    records = readers.read_json(paths.resolve(dataset_config.data_path))
    held_out = alpaca_held_out(records)
    records = records[held_out:] if partition == "train" else records[:held_out]
    templates = load("datasets.alpaca_dataset").PROMPT_DICT
    prompts = (
        templates["prompt_input" if record.get("input") else "prompt_no_input"].format_map(record)
        for record in records
    )
    return encode_prefixed(
        tokenizer, [(p, record["output"]) for p, record in zip(prompts, records, strict=True)]
    )


def get_custom_dataset(
    dataset_config: Any, tokenizer: PreTrainedTokenizerBase, split: str
) -> Iterable[Sample]:
    """Call the user's function of ``file.py`` or ``file.py:function``, as upstream does."""
    path, function = custom_file(dataset_config)
    print(f"--> custom_dataset runs {function} of {path}")
    located = replace(dataset_config, file=f"{path}:{function}")
    return load("datasets.custom_dataset").get_custom_dataset(located, tokenizer, split)


def get_data_collator(dataset_processer: PreTrainedTokenizerBase, dataset_config: Any) -> Any:
    """Return the collator that the user's ``get_data_collator`` makes, or None without one."""
    path, _ = custom_file(dataset_config)
    module = load("datasets.custom_dataset").load_module_from_py_file(str(path))
    make = getattr(module, "get_data_collator", None)
    return make(dataset_processer) if make else None


def get_llamaguard_toxicchat_dataset(
    dataset_config: Any, tokenizer: PreTrainedTokenizerBase, split: str
) -> Iterable[Sample]:
    """Format ToxicChat's conversations for Llama Guard with upstream's formatter."""
    formatter = load("datasets.toxicchat_dataset").get_llamaguard_toxicchat_dataset
    return formatter(dataset_config, tokenizer, split)


def load_toxicchat(dataset_config: Any, split: str) -> Any:
    """Return ToxicChat's rows as a ``datasets.Dataset``; upstream's formatter calls this."""
    import datasets

    rows = readers.read_csv(toxicchat_file(dataset_config, split))
    return datasets.Dataset.from_list([row | {"toxicity": int(row["toxicity"])} for row in rows])


def alpaca_held_out(records: Sequence[Any]) -> int:
    """Return how many of Alpaca's records, from the first, are for validation: 5%, at least one.

    Upstream holds out none of fewer than 20, and then fails.
    """
    return max(len(records) // 20, 1)


def samsum_file(dataset_config: Any, split: str) -> Path:
    """Return a split's JSON file: in the data folder's ``data/`` if it is there, else beside it."""
    return _in_folder(dataset_config.data_path, SAMSUM_FILES.get(split, f"{split}.json"), "data")


def toxicchat_file(dataset_config: Any, split: str) -> Path:
    """Return a split's CSV file: in the data folder's ``data/0124/`` if it is there."""
    name = TOXICCHAT_FILES.get(split, f"{split}.csv")
    return _in_folder(dataset_config.data_path, name, "data/0124")


def custom_file(dataset_config: Any) -> tuple[Path, str]:
    """Return the user's file and the name of the function that is called in it."""
    file, _, function = str(dataset_config.file).partition(".py:")
    path = paths.resolve(file + ".py" if function else file)
    return path, function or "get_custom_dataset"


def _in_folder(folder: str, name: str, subfolder: str) -> Path:
    root = paths.resolve(folder)
    nested = root / subfolder / name
    return nested if nested.is_file() else root / name


def _without_blanks(pairs: Iterable[tuple[str, str]], path: Path) -> list[tuple[str, str]]:
    """Drop pairs in which either side is missing or blank, and say how many there were."""
    every = list(pairs)
    kept = [pair for pair in every if all((side or "").strip() for side in pair)]
    if len(kept) < len(every):
        print(f"--> {len(every) - len(kept)} rows of {path} are blank and left out")
    return kept

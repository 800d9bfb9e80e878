"""An adapter's ``README.md``: what was trained, on what, with which command, and how to load it.

It replaces PEFT's empty model card. Adapters are shared with others, so only the last names of
folders are given, and nothing else about this machine.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_recipes_local.model_folders.adapter_files import vocabulary_of_adapter
from llama_recipes_local.model_folders.model_config import read_config
from llama_recipes_local.run import Run
from llama_recipes_local.run.record import CONFIGURATION_FILE
from llama_recipes_local.storage.publishing import write_text

CARD = "README.md"

_CARD = """\
---
base_model: {base}
library_name: peft
pipeline_tag: text-generation
tags:
- {method}
- transformers
---

# Adapter for {base}

| | |
|---|---|
| base model | {base} |
| method | {method} |
| data | {data} |
{measured}
Trained with

```shell
{command}
```

Every setting and version is in `{record}`, every step in `metrics.jsonl`.

## Use

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{tokenizer}")
model = AutoModelForCausalLM.from_pretrained("{base}")
{resized}model = PeftModel.from_pretrained(model, "{adapter}")
```

```shell
llama-recipes-local generate --adapter {adapter} --model_name {base} --prompt "..."
llama-recipes-local merge --adapter {adapter} --model {base} --out merged
```
"""


def write_adapter_card(
    run: Run, folder: Path, command: str = "", record: str = CONFIGURATION_FILE
) -> None:
    """Write the card of the adapter that a run has saved in a folder.

    Args:
        run: the run, with its data and results.
        folder: where the adapter is.
        command: what trained it; that of ``finetuning.py`` by default.
        record: the file next to the adapter that has every setting.
    """
    base = Path(run.train.model_name).expanduser().resolve()
    rows, before = vocabulary_of_adapter(folder) or 0, read_config(base).get("vocab_size", 0)
    text = _CARD.format(
        base=base.name,
        method=run.train.peft_method,
        data=_data(run),
        measured="".join(f"| {name} | {value} |\n" for name, value in _measured(run).items()),
        command=command or command_without_folders(run.flags),
        record=record,
        tokenizer=Path(run.train.tokenizer_name or base).name,
        resized=f"model.resize_token_embeddings({rows})\n" if rows > before else "",
        adapter=folder.resolve().name,
    )
    write_text(folder / CARD, text)


def command_without_folders(flags: Mapping[str, Any]) -> str:
    """Return a run's command with the last names of the files and folders that it names."""
    words = ["python", "finetuning.py"]
    for name, value in flags.items():
        values = value if isinstance(value, (list, tuple)) else str(value).split(",")
        words += [f"--{name}", ",".join(_last_name(str(each)) for each in values)]
    return shlex.join(words)


def without_folders(words: Sequence[str]) -> str:
    """Return a command with the last names of the files and folders that it names."""
    return shlex.join(map(_last_name, words))


def _last_name(value: str) -> str:
    key, equals, path = value.rpartition("=")
    return key + equals + Path(path).name if path.startswith(("/", "~", "..")) else value


def _data(run: Run) -> str:
    hashes = run.data.fingerprints if run.data is not None else {}
    parts = [f"{part} `{fingerprint}`" for part, fingerprint in hashes.items()]
    names = [f"{source.name}:{source.weight:g}" for source in run.mixed] or [run.train.dataset]
    return ", ".join([*names, *parts])


def _measured(run: Run) -> dict[str, str]:
    losses = {when: run.results.get(f"eval_loss_{when}") for when in ("before", "after")}
    return {
        f"validation loss {when} training": f"{loss:.4f}"
        for when, loss in losses.items()
        if loss is not None
    }

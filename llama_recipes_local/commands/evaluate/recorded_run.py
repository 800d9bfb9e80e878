"""The run whose model is measured: its data and precision as training recorded them, and flags."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_recipes_local import configs
from llama_recipes_local.commands.generate.model_source import base_model
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import EVALUATION, fields_with
from llama_recipes_local.model_folders import has_tokenizer
from llama_recipes_local.preflight import preflight_data
from llama_recipes_local.run.record import CONFIGURATION_FILE, SavedRun
from llama_recipes_local.run.resolution import Run


def resolve_run(arguments: tuple[Any, ...], adapter: Path | None, flags: dict[str, Any]) -> Run:
    """Return the run with the adapter's or the model's record for defaults.

    Args:
        arguments: what stood on the command line without a flag.
        adapter: the adapter's folder; None means a whole model.
        flags: those of finetuning.py.

    Raises:
        UsageError: if there is no model, a flag is wrong, or the data cannot be used.
    """
    folder = (adapter or Path(str(flags.get("model_name", "")))).expanduser().resolve()
    given = {}
    if adapter or flags.get("model_name"):  # not what lies in the working directory
        given = recorded(SavedRun(folder), quantization=adapter is not None)
    if adapter is None and not has_tokenizer(folder) and "model_name" in given:
        given.setdefault("tokenizer_name", given["model_name"])  # training saves none
    if adapter is not None and not given.get("model_name"):
        given["model_name"] = str(base_model(adapter) or "")
    named = {"dataset", "train_config.dataset"} & {*given, *flags}
    run = preflight_data(
        arguments,
        _replaced(given, flags) | flags,
        parts=("test",) if named else (),  # the default's files are not what was asked for
        found=[] if named else [_no_data()],
    )
    run.train.enable_fsdp = False
    run.train.num_workers_dataloader = 0  # the batches are ready sooner than the model is
    return run


def _no_data() -> Problem:
    return Problem(
        "no data set was named",
        f"the folder of a run has it in its {CONFIGURATION_FILE}, that of a merged model has none",
        f"name one: --dataset NAME, which is one of {', '.join(DATASETS)}",
    )


def recorded(saved: SavedRun, quantization: bool) -> dict[str, Any]:
    """Return a record's fields as flags; quantisation is an adapter's, for a model is as it is."""
    names = fields_with(configs.train_config, EVALUATION)
    found = {name: saved.get("train_config", name) for name in names}
    if not quantization:
        del found["quantization"]
    dataset = DATASETS.get(str(found["dataset"]))
    if dataset is not None:
        for name in vars(dataset.config()):
            found[f"{dataset.name}.{name}"] = saved.get(dataset.name, name)
    if found.get("quantization") == "4bit":
        for name in fields_with(configs.quantization_config, EVALUATION):
            found[f"quantization_config.{name}"] = saved.get("quantization_config", name)
    return {name: value for name, value in found.items() if value is not None}


def _replaced(given: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record's fields but for those that flags replace, with their owner or without."""
    return {name: value for name, value in given.items() if name.rpartition(".")[2] not in flags}

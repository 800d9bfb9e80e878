"""The run whose model is measured: its recorded data and precision, overridden by flags."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from llama_recipes_local import configs
from llama_recipes_local.answers.model_source import base_model
from llama_recipes_local.checkpoints.layout import check_converted
from llama_recipes_local.datasets.mixed_sources import MIXED, named_sources
from llama_recipes_local.datasets.mixture import mixed_dataset
from llama_recipes_local.datasets.named_path import OF_THE_FILES, named_path, with_data_path
from llama_recipes_local.datasets.registry import DATASETS, NAMING
from llama_recipes_local.errors import Problem, caught
from llama_recipes_local.fields import EVALUATION, fields_with
from llama_recipes_local.model_folders.architectures import check_architecture
from llama_recipes_local.model_folders.auxiliary_files import has_tokenizer
from llama_recipes_local.model_folders.model_config import check_config
from llama_recipes_local.preflight import preflight_data
from llama_recipes_local.preflight.config_file import CONFIG_FLAGS, with_config
from llama_recipes_local.preflight.flags import reached_by
from llama_recipes_local.run import Run
from llama_recipes_local.run.record import CONFIGURATION_FILE, SavedRun
from llama_recipes_local.storage.names import check_path

OWN_FLAGS = (
    *("adapter", "metrics", "out", "compare"),
    *("batch_size", "max_new_tokens", "max_examples"),
    *("benchmark", "benchmark_path", "num_fewshot", "json"),
)


def resolve_run(arguments: tuple[object, ...], adapter: Path | None, flags: dict[str, Any]) -> Run:
    """Return the run, with the record of the adapter's or the model's run as defaults.

    Args:
        arguments: positional arguments of the command line.
        adapter: the adapter's folder; None means a full model.
        flags: those of finetuning.py.

    Raises:
        UsageError: if there is no model, a flag is wrong, or the data cannot be used.
    """
    configured = with_config(flags)
    flags = {name: configured.flags[name] for name in configured.flags if name not in CONFIG_FLAGS}
    named_model = str(flags.get("model_name", ""))
    readable = bool(named_model.strip()) and not check_path(named_model, "--model_name")
    folder = adapter or Path(named_model if readable else ".").expanduser().resolve()
    given = {}
    if adapter or readable:  # not a run in the working directory
        given = recorded(SavedRun(folder), quantization=adapter is not None)
    if adapter is None and not has_tokenizer(folder) and "model_name" in given:
        given.setdefault("tokenizer_name", given["model_name"])  # training saves none
    if adapter is not None and not given.get("model_name"):
        given["model_name"] = str(base_model(adapter) or "")
    of_model = _check_model(folder) if adapter is None and readable else []
    named = {"dataset", "train_config.dataset"} & {*given, *flags}
    written = {*given}.difference(flags) | {*configured.settings}
    run = preflight_data(
        arguments,
        _of_read_data(_not_overridden(given, flags) | flags, written),
        parts=("test",) if named else (),  # the default data set was not asked for
        found=configured.problems + of_model + ([] if named else [_no_data()]),
        others=OWN_FLAGS,
    )
    run.train.enable_fsdp = False
    run.train.num_workers_dataloader = 0  # worker processes would start slower than the batches
    return run


def _check_model(folder: Path) -> list[Problem]:
    """Return what is wrong with the configuration of a model's folder.

    A folder that is missing, or holds another kind of model, is found with the data.
    """
    if not folder.is_dir() or check_architecture(folder, "--model_name"):
        return []
    with caught() as problems:
        check_config(folder, "--model_name")
    return check_converted(folder, "--model_name") or problems


def _no_data() -> Problem:
    return Problem(
        "no data set was named",
        f"a run's folder names it in {CONFIGURATION_FILE}, which a merged model's does not have",
        NAMING,
    )


def recorded(saved: SavedRun, quantization: bool) -> dict[str, Any]:
    """Return a record's fields as flags.

    Args:
        saved: the record.
        quantization: whether to return the quantisation too, which applies to an adapter's base
            model; a full model is loaded as it was saved.
    """
    names = fields_with(configs.train_config, EVALUATION)
    found = {name: saved.get("train_config", name) for name in names}
    if not quantization:
        del found["quantization"]
    if not Path(str(found["tokens_path"] or "")).is_dir():  # then the data itself may be here
        del found["tokens_path"]
    named = str(found["dataset"])
    mixture = str(saved.get(MIXED, "sources", "")) if named == MIXED else ""
    sources = named_sources(mixed_dataset(sources=mixture))[0] if mixture else []
    for dataset in dict.fromkeys([named, *(source.dataset for source in sources)]):
        for name in vars(DATASETS[dataset].config()) if dataset in DATASETS else ():
            found[f"{dataset}.{name}"] = saved.get(dataset, name)
    if found.get("quantization") == "4bit":
        for name in fields_with(configs.quantization_config, EVALUATION):
            found[f"quantization_config.{name}"] = saved.get("quantization_config", name)
    return {name: value for name, value in found.items() if value is not None}


def _not_overridden(given: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record's fields without those that flags override, qualified or not.

    ``--dataset PATH`` overrides all that the record says of the files in its place.
    """
    overridden = {*flags, *(OF_THE_FILES if named_path(flags) else ())}
    return {
        name: value for name, value in given.items() if name.rpartition(".")[2] not in overridden
    }


def _of_read_data(flags: dict[str, Any], written: Collection[str]) -> dict[str, Any]:
    """Return the flags without those of a record or file for data that is not measured.

    Args:
        flags: all flags, with the record's.
        written: names of those that a record or file has.
    """
    found, _ = with_data_path(flags)
    sources = named_sources(mixed_dataset(sources=str(found.get(f"{MIXED}.sources", ""))))[0]
    read = {str(found.get("dataset", "")), *(source.dataset for source in sources)}
    unread = [
        name
        for name in written
        if (owners := {cls.__name__ for cls, _ in reached_by(name)})
        and owners <= DATASETS.keys() - read
    ]
    return {name: value for name, value in flags.items() if name not in unread}

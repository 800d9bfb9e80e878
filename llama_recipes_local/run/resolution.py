"""Builds a run's configurations from its flags, before anything is loaded."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llama_recipes_local import configs
from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.configs.protocols import DatasetConfig
from llama_recipes_local.configs.training import AUTO
from llama_recipes_local.datasets.local import local_dataset
from llama_recipes_local.datasets.mixed_sources import named_sources
from llama_recipes_local.datasets.mixture import mixed_dataset
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.field_values import update_config
from llama_recipes_local.fields import AUTOMATIC, FOLDER, fields_with
from llama_recipes_local.run import Run, Source


def resolve(flags: dict[str, Any]) -> Run:
    """Build the run that the flags ask for.

    Raises:
        ValueError: if a value cannot mean its field's type.
    """
    folders = fields_with(configs.train_config, FOLDER)
    automatic = [flag for flag, value in flags.items() if is_automatic(flag, value)]
    named = {flag: value for flag, value in flags.items() if flag not in automatic}
    run = Run({flag: _expand_home(flag, value, folders) for flag, value in named.items()})
    run.automatic = frozenset(flag.rpartition(".")[2] for flag in automatic)
    flags = run.flags
    for config in run.configurations():
        update_config(config, **flags)
    if run.train.dataset in DATASETS:
        run.dataset = resolve_dataset(run.train, flags)
        if isinstance(run.dataset, mixed_dataset):
            run.mixed = _resolve_sources(run.train, run.dataset, flags)
    if run.train.use_peft and run.train.peft_method in METHODS:
        run.peft = METHODS[run.train.peft_method].config()
        update_config(run.peft, **flags)
    return run


def resolve_with(run: Run, more: Mapping[str, Any]) -> Run:
    """Return a run with more flags; its own flags override them."""
    found = resolve({**more, **run.flags})
    found.automatic, found.chosen, found.model = run.automatic, run.chosen, run.model
    return found


def is_automatic(flag: str, value: object) -> bool:
    """Return whether a flag leaves the choice of its field's value to preflight."""
    owner, _, name = flag.rpartition(".")
    return value == AUTO and any(
        name in fields_with(config, AUTOMATIC) and owner in ("", config.__name__)
        for config in (configs.train_config, configs.fsdp_config)
    )


def resolve_dataset(train: configs.train_config, flags: dict[str, Any]) -> DatasetConfig:
    """Return the configuration of the data set that ``train.dataset`` names.

    Raises:
        ValueError: if a value cannot mean its field's type.
    """
    config = DATASETS[train.dataset].config()
    update_config(config, **flags)
    # --train_config.data_root reaches it too
    config.data_root = config.data_root or train.data_root
    return config


def _resolve_sources(
    train: configs.train_config, mixture: mixed_dataset, flags: dict[str, Any]
) -> list[Source]:
    """Return the sources of a mixture that can be used, each with its own configuration."""
    sources = []
    for named in named_sources(mixture)[0]:
        config = resolve_dataset(replace(train, dataset=named.dataset), flags)
        config.dataset = named.dataset  # the flag of this name means the mixture
        if isinstance(config, local_dataset) and named.path:
            config.data_path = named.path
        sources.append(Source(named.name, named.dataset, named.weight, config))
    return sources


def _expand_home(flag: str, value: object, folders: list[str]) -> object:
    """Expand a folder's ~, which a shell does not expand in --flag=~/folder."""
    is_folder = flag.rpartition(".")[2] in folders
    return os.path.expanduser(value) if is_folder and isinstance(value, str) else value

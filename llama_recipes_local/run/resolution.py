"""``Run``: every configuration of a run, resolved from the flags before anything is loaded."""

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch.distributed.fsdp import ShardingStrategy

from llama_recipes_local import configs
from llama_recipes_local.adapters.base import AdapterConfig
from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.datasets.base import DatasetConfig
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.fields import FOLDER, fields_with, update_config

if TYPE_CHECKING:
    from llama_recipes_local.datasets.run_data import RunData


@dataclass
class Run:
    """A fine-tuning run's configurations; ``dataset`` and ``peft`` are None for unknown names."""

    flags: dict[str, Any]
    train: configs.train_config = field(default_factory=configs.train_config)
    fsdp: configs.fsdp_config = field(default_factory=configs.fsdp_config)
    quantization: configs.quantization_config = field(default_factory=configs.quantization_config)
    wandb: configs.wandb_config = field(default_factory=configs.wandb_config)
    dataset: DatasetConfig | None = None
    peft: AdapterConfig | None = None
    data: "RunData | None" = None
    """What it trains on, once ``datasets.run_data.prepare_data`` has prepared it."""
    results: dict[str, Any] = field(default_factory=dict)
    """What ``train`` returned, and the losses before training."""
    preset: str = ""
    """What the preset sets, as it is printed."""

    @property
    def given(self) -> set[str]:
        """Names of the fields that flags set, with or without their configuration's name."""
        return {flag.rpartition(".")[2] for flag in self.flags}

    @property
    def is_sharded(self) -> bool:
        """Whether weights are sharded; with NO_SHARD each rank has a full replica."""
        no_shard = self.fsdp.sharding_strategy == ShardingStrategy.NO_SHARD
        return self.train.enable_fsdp and not no_shard

    def configurations(self) -> list[object]:
        """Return the configurations that flags reach."""
        every = [self.train, self.fsdp, self.quantization, self.wandb, self.dataset, self.peft]
        return [config for config in every if config is not None]


def resolve(flags: dict[str, Any]) -> Run:
    """Build the run that the flags ask for.

    Raises:
        ValueError: if a value cannot mean its field's type.
    """
    folders = fields_with(configs.train_config, FOLDER)
    run = Run({flag: _expand_home(flag, value, folders) for flag, value in flags.items()})
    flags = run.flags
    for config in run.configurations():
        update_config(config, **flags)
    if run.train.dataset in DATASETS:
        run.dataset = resolve_dataset(run.train, flags)
    if run.train.use_peft and run.train.peft_method in METHODS:
        run.peft = METHODS[run.train.peft_method].config()
        update_config(run.peft, **flags)
    return run


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


def _expand_home(flag: str, value: object, folders: list[str]) -> object:
    """Expand a folder's ~, which a shell does not expand in --flag=~/folder."""
    is_folder = flag.rpartition(".")[2] in folders
    return os.path.expanduser(value) if is_folder and isinstance(value, str) else value

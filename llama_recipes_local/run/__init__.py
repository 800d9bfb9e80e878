"""The active run; ``resolution`` builds it from flags, ``record`` writes it to a file.

Functions that upstream's ``main`` calls without a configuration look the active run up here.
Everything else is passed the run or the configuration that it needs.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llama_recipes_local import configs
from llama_recipes_local.configs.protocols import AdapterConfig, DatasetConfig, Part
from llama_recipes_local.fields import word_of
from llama_recipes_local.run.stages import Stages

if TYPE_CHECKING:
    from llama_recipes_local.models.new_tokens import NewTokens
    from llama_recipes_local.parallel import Watch
    from llama_recipes_local.run.log import RunLog


class PreparedData(Protocol):
    """The data of a run, as ``datasets.run_data.RunData`` has it."""

    @property
    def splits(self) -> Mapping[Part, Any]:
        """The rows of the parts, or a stream of them."""

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Hashes of their content, by "train" and "validation"; a stream has none."""

    @property
    def tokenizer(self) -> str:
        """A hash of the tokenizer."""

    @property
    def new_tokens(self) -> "NewTokens | None":
        """The tokens that the model was not trained on; None without any."""

    @property
    def example(self) -> str:
        """A text to try the trained model with; "" if none is known."""

    def save(self, folder: Path) -> None:
        """Write the audit of the data and its prompt template into a folder."""


@dataclass(frozen=True)
class Source:
    """A data set that is trained on.

    Attributes:
        name: what it is called where losses are reported.
        dataset: the data set's name.
        weight: its share of the label tokens, on any scale.
        config: its configuration.
    """

    name: str
    dataset: str
    weight: float
    config: DatasetConfig


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
    mixed: list[Source] = field(default_factory=list)
    """What a ``mixed_dataset`` is mixed of; empty for any other."""
    data: PreparedData | None = None
    """What it trains on, once ``datasets.run_data.prepare_data`` has prepared it."""
    results: dict[str, Any] = field(default_factory=dict)
    """The losses before and after training, and how much work it was, as ``History.summary``
    has them."""
    stages: Stages = field(default_factory=Stages)
    """Times what comes before the first step."""
    log: "RunLog | None" = None
    """The file of what it prints, which other ranks do not write."""
    watch: "Watch | None" = None
    """Watches the other ranks; None if this process is alone."""
    called: bool = False
    """Whether Python code called it, as in a notebook: the process goes on when it has ended."""
    model: dict[str, Any] | None = None
    """The model's ``config.json``, of a run that is planned for GPUs elsewhere; None means that of
    its folder, and this machine."""
    recipe: str = ""
    """What ``--config`` sets, as it is printed."""
    automatic: frozenset[str] = frozenset()
    """Names of fields whose flag is "auto": they are not named, and preflight chooses them."""
    chosen: frozenset[str] = frozenset()
    """Names of fields that preflight has chosen."""
    choices: str = ""
    """What was chosen of what no flag names, and why, as it is printed."""
    refused: frozenset[str] = frozenset()
    """Names of fields whose flags cannot be used, which is reported: they count as named."""
    tokenizer: Any = None
    """What the data is checked and prepared with, once ``models.loading.run_tokenizer`` has loaded
    it; ``main`` is given it too."""
    closing: list[str] = field(default_factory=list)
    """Sections of the box that the run ends with, below the losses: each is some lines of text, as
    answers before and after."""

    @property
    def given(self) -> set[str]:
        """Names of the fields that flags set, with or without their configuration's name."""
        return {flag.rpartition(".")[2] for flag in self.flags}

    def may_change(self, name: str) -> bool:
        """Return whether the program may choose a field's value, because no flag names it."""
        return name not in self.given or name in self.automatic | self.chosen

    @property
    def is_sharded(self) -> bool:
        """Whether weights are sharded; with NO_SHARD each rank has a full replica."""
        return self.train.enable_fsdp and word_of(self.fsdp, "sharding_strategy") != "NO_SHARD"

    @property
    def sources(self) -> list[Source]:
        """The data sets that are trained on: those of a mixture, or the one; none if unknown."""
        if self.mixed or self.dataset is None:
            return self.mixed
        return [Source(self.train.dataset, self.train.dataset, 1, self.dataset)]

    @property
    def main_source(self) -> Source:
        """The source with the largest weight, whose prompts represent the run."""
        return max(self.sources, key=lambda source: source.weight)

    def configurations(self) -> list[object]:
        """Return the configurations that flags reach."""
        every = [self.train, self.fsdp, self.quantization, self.wandb, self.dataset, self.peft]
        every += [source.config for source in self.mixed]
        return [config for config in every if config is not None]


_active: Run | None = None


def active_run() -> Run | None:
    """Return the run that ``finetuning.main`` is in, or None in a script or notebook."""
    return _active


@contextlib.contextmanager
def activate(run: Run) -> Iterator[Run]:
    """Make ``run`` the active one inside the ``with`` block."""
    global _active
    _active = run
    try:
        yield run
    finally:
        _active = None

"""What an adapter method declares; ``adapters.registry`` lists the methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from llama_recipes_local.configs.protocols import AdapterConfig
from llama_recipes_local.errors import Problem
from llama_recipes_local.fields import Choices
from llama_recipes_local.run import Run

if TYPE_CHECKING:
    import peft

TASK = Choices("CAUSAL_LM")
EMBEDDING = "embed_tokens"
HEAD = "lm_head"
"""What a Llama calls them."""
Config = TypeVar("Config", bound=AdapterConfig)
Check = Callable[[Run, Config, dict[str, Any], Path], list[Problem]]


def no_problem(
    run: Run, adapter: AdapterConfig, model: dict[str, Any], folder: Path
) -> list[Problem]:
    """Find nothing wrong: the check of a method that works with every model."""
    return []


def leave_to_peft(adapted: peft.PeftModel) -> None:
    """Change nothing: PEFT computes the method as it is."""


@dataclass(frozen=True, kw_only=True)
class AdapterMethod(Generic[Config]):
    """An adapter method, as ``--peft_method`` names it.

    The trained tensors are saved, and those others that PEFT saves, such as VeRA's projections.

    Attributes:
        name: the name in ``--peft_method``.
        title: its name in ``--help``.
        config: the class of its configuration. Its fields are flags; PEFT's configuration has
            fields of the same names.
        peft_type: ``peft_type`` in ``adapter_config.json``.
        peft_config: the class of PEFT's configuration; None for the one of its ``peft_type``.
        check: finds what is wrong with a run that makes a new adapter. It is given the run, the
            method's configuration, the model's ``config.json`` (empty if it cannot be read) and
            the model's folder. The ranges and choices of single fields are checked elsewhere.
        prepare: called once with the model that a new adapter was put on, before the adapter gets
            its dtype; not called for an adapter that is loaded.
        install: replaces PEFT's computation with this package's in a model to be trained.
        reads_weights: returns the flags of a configuration that initialise an adapter from the
            model's weights, which ``--low_cpu_fsdp`` has not read yet.
        attention: the only attention implementation that ``install``'s computation works with;
            None if any does.
        supports_vision: whether it can be put on a vision model.
        is_mergeable: whether it changes only the model's weights, so that ``merge`` can apply it.
    """

    name: str
    title: str
    config: type[Config]
    peft_type: str
    peft_config: type[peft.PeftConfig] | None = None
    check: Check[Config] = no_problem
    prepare: Callable[[peft.PeftModel], None] = leave_to_peft
    install: Callable[[peft.PeftModel], None] = leave_to_peft
    reads_weights: Callable[[Config], list[str]] = lambda config: []
    attention: str | None = None
    supports_vision: bool = False
    is_mergeable: bool = False

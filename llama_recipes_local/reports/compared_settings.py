"""What was set in a run, and what differs between runs."""

from typing import Any

from llama_recipes_local import configs
from llama_recipes_local.adapters.registry import config_classes
from llama_recipes_local.reports.run_files import RunFiles

_NOT_SETTINGS = ("output_dir",)
Table = dict[str, list[str]]


def of_runs(runs: list[RunFiles]) -> Table:
    """Return the settings that are not the defaults in a run, or differ: a value for each run."""
    recorded = [_recorded(run) for run in runs]
    names = {name: None for each in recorded for name in each}
    table = {}
    for name in names:
        values = [_text(each.get(name)) for each in recorded]
        defaults = [_text(_default(name, each)) for each in recorded]
        if len(set(values)) > 1 or values != defaults:
            table[name] = values
    return table


def versions_of(runs: list[RunFiles]) -> Table:
    """Return the packages' versions: one for each run."""
    each = [run.record.fields("versions") for run in runs]
    names = {name: None for found in each for name in found}
    return {name: [_text(found.get(name)) for found in each] for name in names}


def _recorded(run: RunFiles) -> dict[str, Any]:
    """Return a run's settings by the name of their flag."""
    found: dict[str, Any] = {}
    for owner in ("train_config", "fsdp_config", "quantization_config"):
        found |= run.record.fields(owner)
    dataset = str(found.get("dataset", ""))
    own = run.record.fields(dataset).items()
    found |= {f"{dataset}.{name}": value for name, value in own if name not in found}
    if found.get("use_peft") and (adapter := _adapter(found)):
        found |= run.record.fields(type(adapter).__name__)
    return {name: value for name, value in found.items() if name not in _NOT_SETTINGS}


def _adapter(recorded: dict[str, Any]) -> Any:
    """Return the defaults of a run's adapter; None if its method is not known here."""
    cls = config_classes().get(str(recorded.get("peft_method")))
    return cls() if cls else None


def _default(name: str, recorded: dict[str, Any]) -> Any:
    own = (configs.train_config(), configs.fsdp_config(), configs.quantization_config())
    for config in (*own, _adapter(recorded)):
        if hasattr(config, name):
            return getattr(config, name)
    return None


def _text(value: Any) -> str:
    if isinstance(value, str) or value is None:
        return value or ""
    return str(value)

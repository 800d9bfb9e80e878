"""What was set in a run, and what differs between runs."""

from collections.abc import Sequence
from typing import Any

from llama_recipes_local import configs
from llama_recipes_local.adapters.registry import config_classes
from llama_recipes_local.reports.run_files import RunFiles

_NOT_SETTINGS = ("output_dir",)
Table = dict[str, list[str]]


def of_runs(runs: Sequence[RunFiles]) -> tuple[Table, Table]:
    """Return the settings that differ between runs, and those that are the same but no defaults."""
    recorded = [_recorded(run) for run in runs]
    names = {name: None for each in recorded for name in each}
    differ: Table = {}
    same: Table = {}
    for name in names:
        values = [_text(each.get(name)) for each in recorded]
        defaults = [_text(_default(name, each)) for each in recorded]
        if len(set(values)) > 1:
            differ[name] = values
        elif values != defaults:
            same[name] = values
    return differ, same


def versions_of(runs: Sequence[RunFiles]) -> Table:
    """Return versions, and hashes of what a run is made of: one for each run."""
    each = [_versions(run) for run in runs]
    names = {name: None for found in each for name in found}
    return {name: [_text(found.get(name)) for found in each] for name in names}


def _versions(run: RunFiles) -> dict[str, Any]:
    upstream, data = run.record.fields("upstream"), run.record.fields("data")
    versions = run.sft.get("versions")
    found = run.record.fields("versions") | (versions if isinstance(versions, dict) else {})
    lock = str(upstream.get("lock", "")).replace(" --hash=", " ")
    named = {"code": run.record.code, "upstream": lock} | {
        f"data, {part}": value for part, value in data.items()
    }
    if run.base:
        named["base model"] = f"{run.base.get('name')} {run.base.get('hash')}"
    patches = upstream.get("patches")
    for patch, value in patches.items() if isinstance(patches, dict) else ():
        named[patch] = value
    return (
        run.record.fields("machine") | found | {name: each for name, each in named.items() if each}
    )


def _recorded(run: RunFiles) -> dict[str, Any]:
    """Return a run's settings by the name of their flag; of sft.py's those that were given."""
    if isinstance(flags := run.sft.get("flags"), dict):
        return {name: value for name, value in flags.items() if name not in _NOT_SETTINGS}
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

"""``run_config.json``: the configurations, versions and patches of a run, written and read."""

import hashlib
import json
import time
from dataclasses import asdict, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from platform import python_version
from typing import Any, get_type_hints

from llama_recipes_local import _network, configs, launch
from llama_recipes_local.errors import door
from llama_recipes_local.field_values import convert
from llama_recipes_local.run import Run
from llama_recipes_local.storage.publishing import write_json
from llama_recipes_local.vendoring import read_manifest, vendor_dir

CONFIGURATION_FILE = "run_config.json"
CUSTODY_FILE = "custody.json"
AUDIT_FILE = "data_audit.json"
SAMPLES_FILE = "sample_answers.json"
BASE_RECORD = "base_model.json"
SIGNATURE = ".sig"
FINISHED = "finished"
ENDING = ("stopped", "best")
"""Of a run's results: why it stopped early, and its best validation."""
CODE = "code"


def find_in_run(folder: Path, name: str) -> Path | None:
    """Return a file of the run that wrote a model's folder, if there is one.

    It is in the run's folder, which for a ``checkpoint-STEP`` is the folder above.
    """
    places = [folder, folder.parent] if folder.name.startswith("checkpoint-") else [folder]
    return next((path for place in places if (path := place / name).is_file()), None)


class SavedRun:
    """A run's configurations as ``save_description`` wrote them; empty if there is no record."""

    def __init__(self, folder: Path) -> None:
        """Read the record of the run that wrote a model's folder, see ``find_in_run``.

        Raises:
            UsageError: if there is a record and it is not a JSON object.
        """
        self.path = find_in_run(folder, CONFIGURATION_FILE)
        self._configs: dict[str, Any] = read_record(self.path) if self.path else {}

    @property
    def finished(self) -> str:
        """When the run came to its end, in words; empty if it did not."""
        return str(self._configs.get(FINISHED) or "")

    @property
    def code(self) -> str:
        """The hash of this package's code; empty if it was not recorded."""
        return str(self._configs.get(CODE) or "")

    @property
    def ending(self) -> list[str]:
        """Why the run stopped early, and its best validation, in words, as far as known."""
        known = (self._configs.get(name) for name in ENDING)
        return [f"{name} {text}" for name, text in zip(ENDING, known, strict=True) if text]

    def get(self, config: str, field: str, default: object = None) -> Any:
        """Return a configuration's field, or the default if it was not recorded."""
        return self.fields(config).get(field, default)

    def fields(self, config: str) -> dict[str, Any]:
        """Return a configuration's fields; none if it was not recorded."""
        fields = self._configs.get(config)
        return fields if isinstance(fields, dict) else {}


def read_record(path: Path) -> dict[str, Any]:
    """Return what ``run_config.json`` holds.

    Raises:
        UsageError: if it is not the record of a run.
    """
    fix = "copy the run's folder again, or remove the file and give its settings as flags"
    with door(f"{path} is not the record of a run", fix):
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
        _check_types(content)
    return content


def _check_types(content: dict[str, Any]) -> None:
    """Check that recorded values are of their fields' types.

    Raises:
        ValueError: if one is not.
    """
    for cls in (configs.train_config, configs.quantization_config, configs.wandb_config):
        recorded = content.get(cls.__name__)
        types = get_type_hints(cls)
        for name, value in recorded.items() if isinstance(recorded, dict) else ():
            # upstream's older value for 8 bits is True
            older = name == "quantization" and isinstance(value, bool)
            if name in types and value is not None and not older:
                try:
                    if isinstance(convert(value, types[name]), str) and not isinstance(value, str):
                        raise ValueError("expected a string")
                except ValueError as error:
                    raise ValueError(f"{cls.__name__} has {name} {value!r:.80}: {error}") from error


PACKAGES = ("llama_recipes_local", "torch", "transformers", "peft", "tokenizers")


def describe(run: Run) -> dict[str, Any]:
    """Return the run as JSON-ready data: its configurations, the versions, and what was patched."""
    described: dict[str, Any] = {
        type(config).__name__: {name: _plain(getattr(config, name)) for name in vars(config)}
        for config in run.configurations()
    }
    described[CODE] = code_hash()
    described["versions"] = {package: import_module(package).__version__ for package in PACKAGES}
    if run.data is not None:
        described["data"] = dict(run.data.fingerprints)
    manifest = read_manifest()
    described["upstream"] = {"lock": manifest.lock, "patches": dict(manifest.patches)}
    return described


@cache
def code_hash() -> str:
    """Return a sha256 of this package's own code."""
    digest, package = hashlib.sha256(), vendor_dir().parent
    for path in sorted(package.rglob("*.py")):
        if vendor_dir() not in path.parents:
            digest.update(path.relative_to(package).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def save_description(run: Run, path: Path, finished: bool = False) -> None:
    """Write ``describe(run)`` as JSON to ``path``, and how it ended if the run has."""
    write_json(path, describe(run) | (_end(run) if finished else {}))


def _end(run: Run) -> dict[str, Any]:
    """Return when and why a run ended, and which other machines it tried to reach."""
    import torch

    tried = _network.attempts()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {
        FINISHED: time.strftime("%F %T"),
        **{name: run.results[name] for name in ENDING if name in run.results},
        "machine": {"device": gpu, "ranks": launch.world_size(), "python": python_version()},
        "network": {"attempts": len(tried), "to": sorted(set(tried))},
    }


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, (str, int, float, bool, type(None), list)):
        return value
    return str(value)

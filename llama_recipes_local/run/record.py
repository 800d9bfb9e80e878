"""What a run wrote into its output folder about itself, for the commands that come after it."""

import json
from pathlib import Path
from typing import Any

from llama_recipes_local.errors import refusal

CONFIGURATION_FILE = "run_config.json"


def find_in_run(folder: Path, name: str) -> Path | None:
    """Return a file of the run that wrote a model's folder, if there is one.

    A run's own folder has it, that of a ``checkpoint-STEP`` is in the run's folder above it.
    """
    places = [folder, folder.parent] if folder.name.startswith("checkpoint-") else [folder]
    return next((path for place in places if (path := place / name).is_file()), None)


class SavedRun:
    """A run's configurations as ``run.save_description`` wrote them; empty where there are none."""

    def __init__(self, folder: Path) -> None:
        """Read the record of the run that wrote a model's folder, see ``find_in_run``.

        Raises:
            UsageError: if the record is there and is no JSON object.
        """
        self.path = find_in_run(folder, CONFIGURATION_FILE)
        self._configs: dict[str, Any] = _read(self.path) if self.path else {}

    def get(self, config: str, field: str, default: Any = None) -> Any:
        """Return a configuration's field, or the default if it was not recorded."""
        return self.fields(config).get(field, default)

    def fields(self, config: str) -> dict[str, Any]:
        """Return a configuration's fields; none if it was not recorded."""
        fields = self._configs.get(config)
        return fields if isinstance(fields, dict) else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise refusal(
            f"{path} is not the record of a run",
            str(error),
            "copy the run's folder again, or remove the file and name what it would tell",
        ) from error
    return content

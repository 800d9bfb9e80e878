"""The run's parameters in ``train_params.yaml`` next to a sharded checkpoint."""

from pathlib import Path

import yaml

from llama_recipes_local.errors import refusal
from llama_recipes_local.run.record import SavedRun

PARAMETERS = "train_params.yaml"
NAMES = ("model_name", "tokenizer_name", "output_dir")
FIX = "name the model that was trained: --model DIR"


def read_parameters(checkpoint: Path) -> dict[str, str]:
    """Return the run's parameters as text; empty if they were not saved.

    Those of a ``checkpoint-STEP`` are in the record of its run.

    Raises:
        UsageError: if the file is corrupt.
    """
    path = checkpoint / PARAMETERS
    if not path.is_file():
        run = SavedRun(checkpoint)
        found = {name: run.get("train_config", name) for name in NAMES}
        return {name: str(value) for name, value in found.items() if value}
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not a mapping")
    except (OSError, ValueError, yaml.YAMLError) as error:
        fix = f"remove the file, and {FIX}"
        raise refusal(f"{path} cannot be read", str(error), fix) from error
    return {str(name): str(value) for name, value in content.items() if str(value) != "None"}


def trained_model(checkpoint: Path, parameters: dict[str, str]) -> Path:
    """Return the folder of the model that was trained.

    Raises:
        UsageError: if the parameters do not name it, or the folder is missing.
    """
    path = checkpoint / PARAMETERS
    named = parameters.get("model_name")
    if not named:
        why = "it names the model that was trained, for its configuration and tokenizer"
        what = f"{path} does not name a model" if path.is_file() else f"{path} is missing"
        raise refusal(what, why, FIX)
    folder = Path(named).expanduser().resolve()
    if not (folder / "config.json").is_file():
        what = f"the model that was trained is not in {folder}"
        raise refusal(what, f"{checkpoint} names that folder", FIX)
    return folder

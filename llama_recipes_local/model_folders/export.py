"""Writes a model in one of the export formats; ``merge`` and ``convert`` end here.

A format is a module with the functions of ``ExportFormat``, and a line in ``FORMATS``.
"""

import shutil
from pathlib import Path

from llama_recipes_local.errors import Problem
from llama_recipes_local.model_folders import safetensors_format
from llama_recipes_local.model_folders.exported_model import ExportedModel, ExportFormat
from llama_recipes_local.storage.publishing import published_folder

DEFAULT_FORMAT = "safetensors"
FORMATS: dict[str, ExportFormat] = {"safetensors": safetensors_format}


def check_export(model: ExportedModel, out: Path, format_name: str) -> list[Problem]:
    """Return why a model cannot be written in a format; asked before any weight is written.

    Args:
        model: the model.
        out: the new model's folder, absolute.
        format_name: a name of ``FORMATS``.
    """
    return FORMATS[format_name].check(model, out)


def export(model: ExportedModel, out: Path, format_name: str) -> None:
    """Write a model's folder, whole or not at all; the arguments are those of ``check_export``."""
    with published_folder(out) as draft:
        FORMATS[format_name].write(model, draft)
        if model.prompt_template is not None:
            shutil.copyfile(model.prompt_template, draft / model.prompt_template.name)

"""Writes a model in one of the export formats, for ``export``, ``merge`` and ``convert``.

A format is a line in ``FORMATS``.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llama_recipes_local.certificates.certificate import certify, check_tokenizer
from llama_recipes_local.certificates.held_out import HeldOut, shipped_rows
from llama_recipes_local.errors import refuse
from llama_recipes_local.gguf_files.gguf_export import GgufExport
from llama_recipes_local.gguf_files.tensor_types import FILE_TYPES
from llama_recipes_local.model_folders.exported_model import Export, ExportedModel
from llama_recipes_local.model_folders.safetensors_format import SafetensorsExport
from llama_recipes_local.models import AutoTokenizer
from llama_recipes_local.quantized_folders.fp8_format import STRATEGIES, Fp8Export
from llama_recipes_local.quantized_folders.gptq_format import GptqExport
from llama_recipes_local.storage.publishing import published_folder

DEFAULT_FORMAT = "safetensors"
FORMATS: dict[str, Callable[[ExportedModel], Export]] = {
    "safetensors": SafetensorsExport,
    **{f"gguf-{name}": partial(GgufExport, file=file) for name, file in FILE_TYPES.items()},
    **{f"gptq-{bits}bit": partial(GptqExport, bits=bits) for bits in (4, 8)},
    **{f"fp8-{name}": partial(Fp8Export, strategy=name) for name in STRATEGIES},
}


@dataclass(frozen=True)
class PlannedExport:
    """A checked model that can be written; nothing has been written yet."""

    model: ExportedModel
    out: Path
    export: Export

    def write(
        self, beside: Callable[[Path], None] | None = None, held_out: HeldOut | None = None
    ) -> None:
        """Write the model's folder, whole or not at all.

        Args:
            beside: writes further files into the folder after the model.
            held_out: rows for the certificate; None means the package's own.

        Raises:
            UsageError: if the written files, read back, differ too much from the model.
        """
        with published_folder(self.out) as draft:
            self.export.write(draft)
            if (read := self.export.read_back(draft)) is not None:
                rows = held_out or shipped_rows(self.model, read.original.tokenizer)
                print(certify(draft, read, rows, self.model.accepted))
            if self.model.prompt_template is not None:
                shutil.copyfile(self.model.prompt_template, draft / self.model.prompt_template.name)
            if beside is not None:
                beside(draft)


def planned_export(model: ExportedModel, out: Path, format_name: str) -> PlannedExport:
    """Return the export of a model, checked before any weight is read.

    Args:
        model: the model.
        out: the new model's folder, absolute.
        format_name: a name of ``FORMATS``.

    Raises:
        UsageError: if the model cannot be written in the format, or to the folder.
    """
    export = FORMATS[format_name](model)
    refuse(export.check(out))
    written = export.written_tokenizer()
    if written is not None:
        ours = AutoTokenizer.from_pretrained(model.tokenizer)
        refuse(check_tokenizer(ours, written, model.accepted))
    return PlannedExport(model, out, export)

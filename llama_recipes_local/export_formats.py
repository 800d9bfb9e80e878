"""Writes a model in one of the export formats, for ``export``, ``merge`` and ``convert``.

A format is a line in ``FORMATS``.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from llama_recipes_local.certificates.certificate import Certificate, certify, check_tokenizer
from llama_recipes_local.certificates.held_out import HeldOut, shipped_rows
from llama_recipes_local.errors import caught, refuse
from llama_recipes_local.gguf_files.gguf_export import GgufExport
from llama_recipes_local.gguf_files.tensor_types import FILE_TYPES
from llama_recipes_local.model_folders.exported_model import Export, ExportedModel
from llama_recipes_local.model_folders.finite_weights import finite
from llama_recipes_local.model_folders.safetensors_format import SafetensorsExport
from llama_recipes_local.models import AutoTokenizer
from llama_recipes_local.quantized_folders.fp8_format import STRATEGIES, Fp8Export
from llama_recipes_local.quantized_folders.gptq_format import GptqExport
from llama_recipes_local.storage.names import free_path, shortened
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
            UsageError: if a weight cannot be written, or if the written files, read back, differ
                too much from the model; they are kept in another folder then.
        """
        outcome = "what was written is removed"
        with caught() as problems, published_folder(self.out) as draft:
            self.export.write(draft)
            made = self._certificate(draft, held_out)
            if self.model.prompt_template is not None:
                shutil.copyfile(self.model.prompt_template, draft / self.model.prompt_template.name)
            if beside is not None:
                beside(draft)
            if made is not None and made.refused:
                outcome = f"what was written is kept in {_kept(draft, self.out)}"
                refuse(made.problems())
        refuse(problems, outcome)

    def _certificate(self, draft: Path, held_out: HeldOut | None) -> Certificate | None:
        """Return the certificate of what was written, if the format has one; print a good one."""
        read = self.export.read_back(draft)
        if read is None:
            return None
        rows = held_out or shipped_rows(self.model, read.original.tokenizer)
        made = certify(draft, read, rows, self.model.accepted)
        if not made.refused:
            print(made)
        return made


def _kept(draft: Path, out: Path) -> Path:
    """Move an export that was refused into a folder of its own, to look at or to use; return it."""
    kept = free_path(out.with_name(f"{shortened(out.name)}-refused"))
    with published_folder(kept) as folder:
        for path in list(draft.iterdir()):
            path.rename(folder / path.name)
    return kept


def planned_export(model: ExportedModel, out: Path, format_name: str) -> PlannedExport:
    """Return the export of a model, checked before any weight is read.

    Args:
        model: the model.
        out: the new model's folder, absolute.
        format_name: a name of ``FORMATS``.

    Raises:
        UsageError: if the model cannot be written in the format, or to the folder.
    """
    weight, source = model.weight, model.source
    model = replace(model, weight=lambda name: finite(name, weight(name), source))
    export = FORMATS[format_name](model)
    refuse(export.check(out))
    written = export.written_tokenizer()
    if written is not None:
        ours = AutoTokenizer.from_pretrained(model.tokenizer)
        refuse(check_tokenizer(ours, written, model.accepted))
    return PlannedExport(model, out, export)

"""Exports a model's folder, or an adapter merged into its base model."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from llama_recipes_local.adapters.unread_keys import unread_keys
from llama_recipes_local.commands.export.calibration import calibration_rows
from llama_recipes_local.commands.export.export_types import TYPES
from llama_recipes_local.commands.export.held_out_rows import held_out_rows, held_out_run
from llama_recipes_local.commands.export.lora_adapter import export_lora
from llama_recipes_local.commands.merge.command import Merge, planned_merge
from llama_recipes_local.custody.export_custody import exported_custody
from llama_recipes_local.datasets.prompt_template import find_prompt_template
from llama_recipes_local.errors import caught, refusal, refuse
from llama_recipes_local.export_formats import DEFAULT_FORMAT, PlannedExport, planned_export
from llama_recipes_local.gguf_files.gguf_choices import LORA
from llama_recipes_local.model_folders.adapter_files import check_no_adapter
from llama_recipes_local.model_folders.architectures import check_architecture
from llama_recipes_local.model_folders.exported_model import ExportedModel
from llama_recipes_local.model_folders.find_tokenizer import find_tokenizer
from llama_recipes_local.model_folders.model_config import read_config
from llama_recipes_local.model_folders.output_folder import check_output_folder
from llama_recipes_local.model_folders.stored_quantization import stored_quantization
from llama_recipes_local.model_folders.tensors import FLOATS, StoredTensors, model_tensors
from llama_recipes_local.models.folder_checks import HARMLESS, check_stored_model
from llama_recipes_local.quantized_folders.gptq_format import GptqExport
from llama_recipes_local.run.record import SavedRun
from llama_recipes_local.serving_lines import of_folder, of_lora_file


@dataclass(frozen=True, kw_only=True)
class Export:
    """What to export.

    Attributes:
        model: the model's folder; of an adapter its base model's, None means the one it names.
        adapter: folder of a LoRA adapter; None exports the model itself.
        out: the new folder.
        format: a name of ``TYPES``.
        type: how the format stores weights, one of its types; None means the first.
        tokenizer: the tokenizer's folder; None means the run's, or the model's.
        allow_other_base: whether the base model may be another than the adapter was trained on.
        accepted: checks of the written file that the user accepts the findings of, by name.
        dataset: the data set whose validation part the export is measured on; None means the
            run's, or else the package's own questions.
    """

    model: Path | None
    adapter: Path | None
    out: Path
    format: str = "gguf"
    type: str | None = None
    tokenizer: Path | None = None
    allow_other_base: bool = False
    accepted: Collection[str] = ()
    dataset: str | None = None


def export(asked: Export) -> None:
    """Write the new folder, whole or not at all; one tensor of the model is in memory.

    Raises:
        UsageError: if an input is missing or wrong, or the format cannot hold the model; nothing
            is written then.
    """
    name = _format_name(asked)
    if name == LORA:
        _export_lora(asked)
        return
    with caught() as found:
        planned = _planned(asked, name)
    with caught() as others:
        run = None
        if name != DEFAULT_FORMAT and (asked.dataset or not found):
            run = held_out_run(asked.model, asked.adapter, asked.tokenizer, asked.dataset)
    known = {each.what for each in found}
    refuse([*found, *(each for each in others if each.what not in known)])
    if isinstance(planned.export, GptqExport):
        planned.export.rows = calibration_rows(run)
    adapter = asked.adapter.expanduser().resolve() if asked.adapter else None
    model = planned.model
    beside = exported_custody("export", asked, model.source, adapter, model.tokenizer)
    planned.write(beside, held_out_rows(run, asked.dataset is not None) if run else None)
    print(f"--> the exported model is in {planned.out}\n{of_folder(planned.out)}")


def _format_name(asked: Export) -> str:
    """Return the name of a format and its type in ``FORMATS``.

    Raises:
        UsageError: if the format has no such type.
    """
    types = TYPES[asked.format]
    for flag, value in (("--dataset", asked.dataset), ("--accept", asked.accepted)):
        if value and not types:
            why = "no weight is rounded in it, so nothing is measured"
            raise refusal(f"{flag} with --format {asked.format}", why, f"leave {flag} out")
    if asked.type is None:
        return f"{asked.format}-{types[0]}" if types else asked.format
    if asked.type in types:
        return f"{asked.format}-{asked.type}"
    why = f"{asked.format} has the types {', '.join(types)}"
    other = next(name for name, known in TYPES.items() if asked.type in known)
    fix = f"take one of them, or --format {other}"
    if not types:
        why, fix = "this format has one way to store weights", "leave --type out"
    raise refusal(f"--type {asked.type} with --format {asked.format}", why, fix)


def _export_lora(asked: Export) -> None:
    """Write an adapter's file.

    Raises:
        UsageError: if no adapter is named, or flags that have no effect on it are.
    """
    given = f"--format {LORA}"
    if asked.adapter is None:
        why = "it holds an adapter by itself, without a model"
        raise refusal(f"{given} without an adapter", why, "--adapter DIR")
    if asked.tokenizer is not None:
        why = "the file has no tokenizer"
        raise refusal(f"--tokenizer_name with {given}", why, "leave --tokenizer_name out")
    out = asked.out.expanduser().resolve()
    adapter = asked.adapter.expanduser().resolve()

    def custody(base: Path) -> Callable[[Path], None]:
        return exported_custody("export", asked, base, adapter, None)

    base = export_lora(adapter, asked.model, out, custody, asked.allow_other_base)
    file = next(out.glob("*.gguf"))
    print(f"--> the adapter is {file}\n{of_lora_file(file, base, adapter)}")


def _planned(asked: Export, name: str) -> PlannedExport:
    """Return what is to be written, checked."""
    if asked.adapter is None:
        return _planned_model(asked, name)
    return planned_merge(
        Merge(
            adapter=asked.adapter,
            out=asked.out,
            model=asked.model,
            tokenizer=asked.tokenizer,
            format=name,
            allow_other_base=asked.allow_other_base,
            accepted=asked.accepted,
        )
    )


def _planned_model(asked: Export, name: str) -> PlannedExport:
    if asked.model is None:
        raise refusal(
            "nothing to export",
            "neither a model nor an adapter is named",
            "--model_name DIR, or --adapter DIR",
        )
    folder, out = (each.expanduser().resolve() for each in (asked.model, asked.out))
    refuse(check_output_folder(out))
    refuse(check_architecture(folder, "--model_name"))
    tensors = model_tensors(folder, "--model_name")
    refuse(check_no_adapter(folder) + check_stored_model(folder))
    quantized = stored_quantization(folder, read_config(folder))
    if quantized is not None:
        why = "its weights are rounded already, and would be rounded a second time"
        raise refusal(quantized.what, why, "name the model before it was quantised")
    trained = SavedRun(folder).fields("train_config")
    tokenizer = find_tokenizer(asked.tokenizer, folder, trained)
    model = _whole_model(folder, tokenizer, tensors, asked.accepted)
    planned = planned_export(model, out, name)
    print("\n".join([f"--> exporting {folder}", *unread_keys(folder)]))
    return planned


def _whole_model(
    folder: Path, tokenizer: Path, tensors: StoredTensors, accepted: Collection[str]
) -> ExportedModel:
    tied = bool(read_config(folder).get("tie_word_embeddings"))
    left_out = {"lm_head.weight"} if tied else set()
    template = find_prompt_template(folder)
    return ExportedModel(
        source=folder,
        tokenizer=tokenizer,
        weights={
            each: torch.empty(header.shape, dtype=FLOATS[header.dtype], device="meta")
            for each, header in tensors.headers().items()
            if each not in left_out and not HARMLESS.fullmatch(each)
        },
        weight=tensors.__getitem__,
        config_changes={},
        prompt_template=template,
        accepted=accepted,
    )

"""``llama-recipes-local merge``: a new model folder of an adapter and its base model."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from llama_recipes_local import extras
from llama_recipes_local.adapters.unread_keys import unread_keys
from llama_recipes_local.commands.merge.adapter import Adapter, read_inputs
from llama_recipes_local.commands.merge.base_tensors import BaseTensors, FourBit, check_base
from llama_recipes_local.commands.merge.merged_tensors import MergedTensors
from llama_recipes_local.commands.merge.skeleton import Skeleton
from llama_recipes_local.configs import quantization_config
from llama_recipes_local.custody.export_custody import exported_custody
from llama_recipes_local.datasets.prompt_template import find_prompt_template
from llama_recipes_local.errors import refusal, refuse
from llama_recipes_local.export_formats import DEFAULT_FORMAT, PlannedExport, planned_export
from llama_recipes_local.model_folders.base_record import compare_base
from llama_recipes_local.model_folders.exported_model import ExportedModel
from llama_recipes_local.model_folders.find_tokenizer import find_tokenizer
from llama_recipes_local.model_folders.model_config import read_config
from llama_recipes_local.model_folders.stored_quantization import (
    StoredQuantization,
    stored_quantization,
)
from llama_recipes_local.models import AutoConfig
from llama_recipes_local.models.folder_checks import check_stored_model
from llama_recipes_local.models.weight_values import check_adapter_values
from llama_recipes_local.run.record import SavedRun
from llama_recipes_local.serving_lines import of_folder

FP8_BLOCK = [128, 128]
"""transformers' default."""


@dataclass(frozen=True, kw_only=True)
class Merge:
    """What to merge.

    Attributes:
        adapter: folder of the saved adapter.
        out: the new model's folder.
        model: the base model's folder; None means the one that the adapter names.
        tokenizer: the tokenizer's folder; None means the run's, or the model's.
        dtype: dtype that the base model is cast to and the result is saved in; None keeps it.
        quantization: "4bit" merges into the weights after 4-bit quantisation, which is what QLoRA
            trained on, "none" into the weights themselves; None means as the run trained.
        quant_type: "nf4" or "fp4"; None means as the run trained.
        use_double_quant: whether the scales are quantised too; None means as the run trained.
        format: the export format, a name of ``export_formats.FORMATS``.
        allow_other_base: whether the base model may be another than the adapter was trained on.
        accepted: checks of an exported file that the user accepts the findings of.
    """

    adapter: Path
    out: Path
    model: Path | None = None
    tokenizer: Path | None = None
    dtype: torch.dtype | None = None
    quantization: str | None = None
    quant_type: str | None = None
    use_double_quant: bool | None = None
    format: str = DEFAULT_FORMAT
    allow_other_base: bool = False
    accepted: Collection[str] = ()


def merge(asked: Merge) -> None:
    """Write the merged model, whole or not at all.

    Raises:
        UsageError: as ``planned_merge`` does.
    """
    planned = planned_merge(asked)
    adapter, model = asked.adapter.expanduser().resolve(), planned.model
    planned.write(exported_custody("merge", asked, model.source, adapter, model.tokenizer))
    print(f"--> the merged model is in {planned.out}\n{of_folder(planned.out)}")


def planned_merge(asked: Merge) -> PlannedExport:
    """Return the merged model, which nothing has been written of yet.

    The result equals that of PEFT's ``merge_and_unload`` to the bit. One of its tensors and one
    layer are in memory.

    Raises:
        UsageError: if an input folder is missing or wrong, or the disk is too full; nothing is
            written then.
    """
    out = asked.out.expanduser().resolve()
    inputs = read_inputs(asked.adapter.expanduser().resolve(), asked.model, out, "--model")
    adapter, folder, stored = inputs.adapter, inputs.folder, inputs.stored
    quantized = _quantized(folder)
    run = SavedRun(adapter.folder)
    trained = run.fields("train_config")
    tokenizer = find_tokenizer(asked.tokenizer, folder, trained, adapter.folder)
    config = AutoConfig.from_pretrained(folder)
    skeleton = Skeleton(config, adapter, stored)
    base = BaseTensors(
        stored, asked.dtype, _four_bit(asked, run), skeleton.linears, _block(quantized)
    )
    refuse(check_base(skeleton, base))
    refuse(check_stored_model(folder))
    compared = compare_base(adapter.folder, folder, "--model", asked.allow_other_base)
    refuse(check_adapter_values(adapter.folder) + compared.problems)
    _report_inputs(base, adapter, folder, compared.note)
    merged = MergedTensors(skeleton, base, adapter.tensors)
    config_changes, config_removed = _config_changes(skeleton, merged, asked.dtype)
    model = ExportedModel(
        source=folder,
        tokenizer=tokenizer,
        weights=merged.planned,
        weight=merged,
        config_changes=config_changes,
        config_removed=config_removed,
        prompt_template=find_prompt_template(adapter.folder),
        accepted=asked.accepted,
    )
    planned = planned_export(model, out, asked.format)
    if skeleton.tied and not merged.tied:
        print("--> the adapter changes head and embedding separately: tie_word_embeddings is off")
    return planned


def _quantized(folder: Path) -> StoredQuantization | None:
    """Return how the base model is quantised in its folder; None if it is not.

    Raises:
        UsageError: if it is so that its weights cannot be dequantised.
    """
    found = stored_quantization(folder, read_config(folder))
    if found is None or (found.method is not None and found.method.mergeable):
        return found
    why = "merge dequantises bitsandbytes' 4 and 8 bits and FP8 only"
    fix = "name the model before it was quantised: --model DIR; or use the adapter as it is"
    raise refusal(found.what, why, fix)


def _block(quantized: StoredQuantization | None) -> Sequence[int]:
    """Return the rows and columns of a block of weights in FP8.

    Raises:
        UsageError: if the configuration has no such numbers.
    """
    if quantized is None or quantized.name != "fp8":
        return ()
    block = quantized.settings.get("weight_block_size", FP8_BLOCK)
    if block is None or (isinstance(block, list) and [type(each) for each in block] == [int, int]):
        return block or ()
    why = f"its weight_block_size is {block!r}, and must be two numbers"
    raise refusal(quantized.what, why, "copy the model again, with its config.json")


def _four_bit(asked: Merge, run: SavedRun) -> FourBit | None:
    """Return how the base model's weights are quantised to 4 bits, or None if they are not."""
    trained = run.get("train_config", "quantization")
    if (asked.quantization or trained) != "4bit":
        return None
    what = "--quantization 4bit" if asked.quantization else f"4-bit weights (by {run.path})"
    extras.require("bitsandbytes", what, "quantization")
    defaults = quantization_config()
    kind = asked.quant_type or run.get("quantization_config", "quant_type", defaults.quant_type)
    double = asked.use_double_quant
    if double is None:
        double = run.get("quantization_config", "use_double_quant", defaults.use_double_quant)
    if asked.quantization is None:
        print(
            f"--> trained on 4-bit weights ({kind}, by {run.path}): merging the adapter into "
            "the quantized values (--quantization none merges it into the original weights)"
        )
    return FourBit(kind, double)


def _report_inputs(base: BaseTensors, adapter: Adapter, folder: Path, note: str) -> None:
    print(f"--> merging {adapter.folder}\n    into {folder}")
    for line in unread_keys(folder, adapter.folder):
        print(line)
    if base.scaled:
        print("    dequantizing its weights first")
    if base.packed:
        extras.require("bitsandbytes", f"the 4-bit weights in {folder}", "quantization")
        print("    dequantizing its 4-bit weights first")
    if note:
        print(f"    {note}")


def _config_changes(
    skeleton: Skeleton, merged: MergedTensors, dtype: torch.dtype | None
) -> tuple[dict[str, bool | int | str], tuple[str, ...]]:
    """Return the keys of ``config.json`` that differ from the base model's, and those removed."""
    changes: dict[str, bool | int | str] = {
        "tie_word_embeddings": merged.tied,
        "vocab_size": skeleton.vocabulary,
    }
    removed = ["quantization_config"]
    if dtype is not None:
        changes["dtype"] = str(dtype).removeprefix("torch.")
        removed.append("torch_dtype")  # its name before transformers 5
    return changes, tuple(removed)

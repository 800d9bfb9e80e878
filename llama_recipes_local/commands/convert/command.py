"""``llama-recipes-local convert``: writes a model folder from a checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from llama_recipes_local.checkpoints.layout import check_converted, is_checkpoint
from llama_recipes_local.commands.convert.base_model import BaseModel
from llama_recipes_local.commands.convert.checkpoint_readers import open_checkpoint, weights_of
from llama_recipes_local.commands.convert.foreign_folders import convert_foreign, is_foreign
from llama_recipes_local.commands.convert.gguf_file import SUFFIX, convert_gguf
from llama_recipes_local.commands.convert.sharded_weights import ShardedWeights
from llama_recipes_local.commands.convert.train_params import read_parameters, trained_model
from llama_recipes_local.custody.export_custody import converted_custody
from llama_recipes_local.datasets.prompt_template import find_prompt_template
from llama_recipes_local.errors import refuse
from llama_recipes_local.export_formats import DEFAULT_FORMAT, planned_export
from llama_recipes_local.messages import missing_path
from llama_recipes_local.model_folders.exported_model import ExportedModel
from llama_recipes_local.model_folders.find_tokenizer import find_tokenizer
from llama_recipes_local.model_folders.model_config import check_config
from llama_recipes_local.model_folders.output_folder import check_output_folder
from llama_recipes_local.models import AutoConfig
from llama_recipes_local.models.top_layers import LlamaWithTopLayersForCausalLM


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What to convert.

    Attributes:
        checkpoint: the sharded checkpoint's folder, or a GGUF file.
        out: the new model's folder.
        model: the folder of the model that was trained, for its configuration, its tokenizer and
            the weights that were frozen; None means the one that the checkpoint names.
        tokenizer: the tokenizer's folder; None means the run's, or the model's.
        dtype: dtype of the saved weights; None keeps it.
        format: the export format, a name of ``export_formats.FORMATS``.
    """

    checkpoint: Path
    out: Path
    model: Path | None = None
    tokenizer: Path | None = None
    dtype: torch.dtype | None = None
    format: str = DEFAULT_FORMAT


def convert(asked: Conversion) -> None:
    """Write the model, whole or not at all; one tensor is in memory.

    Raises:
        UsageError: if an input folder is missing or wrong, or the disk is too full; nothing is
            written then.
    """
    checkpoint = asked.checkpoint.expanduser().resolve()
    out = asked.out.expanduser().resolve()
    refuse(check_output_folder(out))
    if not checkpoint.exists():
        refuse([missing_path(checkpoint, "name a folder or a GGUF file: convert PATH --out DIR")])
    if checkpoint.suffix == SUFFIX:
        unused = {"--model": asked.model, "--tokenizer_name": asked.tokenizer}
        beside = converted_custody(asked, checkpoint, None, None)
        convert_gguf(checkpoint, out, asked.dtype, asked.format, unused, beside)
        return
    if is_foreign(checkpoint):
        tokenizer = find_tokenizer(asked.tokenizer, checkpoint, {})
        beside = converted_custody(asked, checkpoint, None, tokenizer)
        convert_foreign(checkpoint, out, tokenizer, asked.dtype, asked.format, beside)
        return
    reader, metadata = open_checkpoint(weights_of(checkpoint))
    parameters = read_parameters(checkpoint)
    folder = _model_folder(asked, checkpoint, parameters)
    tokenizer = find_tokenizer(asked.tokenizer, folder, parameters)
    base = BaseModel(folder, checkpoint) if is_checkpoint(checkpoint) else None
    config = base.config if base else AutoConfig.from_pretrained(folder)
    weights = ShardedWeights(reader, metadata, config, asked.dtype, base)
    model = ExportedModel(
        source=folder,
        tokenizer=tokenizer,
        weights=weights.planned,
        weight=weights,
        config_changes=_config_changes(config, weights),
        config_removed=("quantization_config", "torch_dtype"),
        prompt_template=_prompt_template(parameters),
    )
    planned = planned_export(model, out, asked.format)
    _report_inputs(checkpoint, folder, weights)
    planned.write(converted_custody(asked, checkpoint, folder, tokenizer))
    print(f"--> the model is in {out} ({model.config_changes['dtype']})")


def _model_folder(asked: Conversion, checkpoint: Path, parameters: dict[str, str]) -> Path:
    if asked.model is None:
        return trained_model(checkpoint, parameters)
    folder = asked.model.expanduser().resolve()
    refuse(check_converted(folder, "--model"))
    check_config(folder, "--model")
    return folder


def _report_inputs(checkpoint: Path, folder: Path, weights: ShardedWeights) -> None:
    print(f"--> converting {checkpoint}\n    base model: {folder}")
    if weights.untrained:
        count = f"{len(weights.untrained)} of {len(weights.planned)} tensors"
        print(f"    {count} were not trained: copied unchanged from the base model")


def _config_changes(
    config: transformers.PreTrainedConfig, weights: ShardedWeights
) -> dict[str, int | str | list[str]]:
    """Return how ``config.json`` differs from that of the model that was trained."""
    dtype = str(next(iter(weights.planned.values())).dtype).removeprefix("torch.")
    changes: dict[str, int | str | list[str]] = {"vocab_size": weights.vocabulary, "dtype": dtype}
    if getattr(config, "top_layers", 0):
        architecture = LlamaWithTopLayersForCausalLM.__name__
        changes |= {"top_layers": config.top_layers, "architectures": [architecture]}
    return changes


def _prompt_template(parameters: dict[str, str]) -> Path | None:
    """Return the file with the run's prompt template, if it is still there.

    Raises:
        UsageError: if it is corrupt.
    """
    folder = parameters.get("output_dir")
    return find_prompt_template(Path(folder)) if folder is not None else None

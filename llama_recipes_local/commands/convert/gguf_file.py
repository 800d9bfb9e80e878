"""Converts a GGUF file to a model folder."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from llama_recipes_local.errors import UsageError, refusal, refuse
from llama_recipes_local.export_formats import DEFAULT_FORMAT
from llama_recipes_local.gguf_files.folder_of_file import GgufModel
from llama_recipes_local.messages import join_names, missing_path
from llama_recipes_local.model_folders.output_folder import check_free_space
from llama_recipes_local.storage.publishing import published_folder

SUFFIX = ".gguf"


def convert_gguf(
    path: Path,
    out: Path,
    dtype: torch.dtype | None,
    form: str,
    unused: Mapping[str, object],
    beside: Callable[[Path], None],
) -> None:
    """Write the model of a GGUF file as a folder in the Hugging Face layout, whole or not at all.

    Args:
        path: the file.
        out: the new folder.
        dtype: dtype of the saved weights; None takes the file's, bfloat16 for quantised ones.
        form: the export format, which must be the default one.
        unused: what the user named by flags that have no meaning here, by flag.
        beside: writes more into the folder, once the model is in it.

    Raises:
        UsageError: if the file cannot be read, or the disk is too full.
    """
    for flag, value in unused.items():
        if value is not None:
            raise refusal(
                f"{flag} {value}", "a GGUF file holds all of its model", f"leave {flag} out"
            )
    if form != DEFAULT_FORMAT:
        fix = "leave --format out, and export the new folder then"
        raise refusal(f"--format {form}", "a GGUF file becomes a folder of safetensors", fix)
    if not path.is_file():
        raise UsageError([missing_path(path, "name the file: convert FILE.gguf --out DIR")])
    model = GgufModel(path)
    saved = dtype or model.weights.dtype()
    size = sum(torch.Size(shape).numel() for shape in model.weights.shapes.values())
    refuse(check_free_space(out, size * saved.itemsize))
    print(f"--> converting {path}: {', '.join(model.weights.kinds())}")
    if model.unkept:
        print(f"    not kept, as a folder has no place for it: {join_names(model.unkept)}")
    with published_folder(out) as draft:
        model.write(draft, saved)
        beside(draft)
    print(f"--> the model is in {out} ({str(saved).removeprefix('torch.')})")

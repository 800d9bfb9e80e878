"""Model folders without an index of safetensors: pickles, Meta's own layout, or bare shards."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from llama_recipes_local.commands.convert.meta_layout import (
    config_of,
    read_params,
    to_hugging_face,
)
from llama_recipes_local.commands.convert.pickled_weights import read_pickled
from llama_recipes_local.errors import UsageError, refusal, refuse
from llama_recipes_local.export_formats import PlannedExport, planned_export
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders.exported_model import ExportedModel
from llama_recipes_local.model_folders.model_config import check_config, load_config
from llama_recipes_local.model_folders.tensors import FLOATS, Header, StoredTensors
from llama_recipes_local.model_folders.weight_files import (
    META,
    PICKLED,
    has_weights,
    in_meta_layout,
    meta_layout,
)
from llama_recipes_local.models.folder_checks import HARMLESS, compare
from llama_recipes_local.storage.publishing import write_json

SHARDS = "model-*.safetensors"
_LICENCES = ("LICENSE*", "NOTICE*", "USE_POLICY*")
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_NAMES = dict(zip(_DTYPES, FLOATS, strict=True))


def is_foreign(folder: Path) -> bool:
    """Return whether a folder is a model's, in one of the layouts that this module reads."""
    if in_meta_layout(folder):
        return True
    others = any(folder.glob(PICKLED)) or any(folder.glob(SHARDS))
    return (folder / "config.json").is_file() and not has_weights(folder) and others


def convert_foreign(
    folder: Path,
    out: Path,
    tokenizer: Path,
    dtype: torch.dtype | None,
    form: str,
    beside: Callable[[Path], None],
) -> None:
    """Write the model as a folder in the Hugging Face layout, whole or not at all.

    Args:
        folder: the model's.
        out: the new folder.
        tokenizer: the tokenizer's.
        dtype: dtype of the saved weights; None keeps it.
        form: the export format.
        beside: writes more into the new folder, once the model is in it.

    Raises:
        UsageError: if a file is missing or corrupt, or the disk is too full.
    """
    _check_tokenizer(tokenizer)
    with TemporaryDirectory() as written:
        source = Path(written) if in_meta_layout(folder) else folder
        tensors = _read(folder) if source == folder else _from_meta(folder, source)
        check_config(source, "CHECKPOINT")
        config = load_config(source, "copy the model again")
        tensors = {name: each for name, each in tensors.items() if not HARMLESS.fullmatch(name)}
        headers = {
            name: Header(each.shape, _NAMES.get(each.dtype, str(each.dtype)))
            for name, each in tensors.items()
        }
        refuse(compare(folder, config, tensors, headers))
        if config.tie_word_embeddings:
            tensors.pop("lm_head.weight", None)
        planned = _planned(source, tokenizer, tensors, dtype, out, form)
        print(f"--> converting {folder}")
        planned.write(beside)
    print(f"--> the model is in {out} ({planned.model.config_changes['dtype']})")


def _planned(
    source: Path,
    tokenizer: Path,
    tensors: Mapping[str, torch.Tensor],
    dtype: torch.dtype | None,
    out: Path,
    form: str,
) -> PlannedExport:
    saved = dtype or next(iter(tensors.values())).dtype
    model = ExportedModel(
        source=source,
        tokenizer=tokenizer,
        weights={
            name: torch.empty(each.shape, dtype=dtype or each.dtype, device="meta")
            for name, each in tensors.items()
        },
        weight=lambda name: tensors[name].to(dtype or tensors[name].dtype).clone(),
        config_changes={"dtype": str(saved).removeprefix("torch.")},
        config_removed=("torch_dtype",),
        prompt_template=None,
    )
    return planned_export(model, out, form)


def _read(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of pickled files, or of shards without an index."""
    if pickled := sorted(folder.glob(PICKLED)):
        return {name: each for file in read_pickled(pickled) for name, each in file.items()}
    return dict(StoredTensors(sorted(folder.glob(SHARDS))))


def _from_meta(folder: Path, source: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of Meta's files; write their configuration to ``source``."""
    files = sorted(folder.glob(META))
    if not files:
        raise UsageError([meta_layout(folder)])
    numbers = [path.name.split(".")[1] for path in files]
    missing = [f"consolidated.{n:02}.pth" for n in range(len(files)) if f"{n:02}" not in numbers]
    if missing:
        fix = "copy these files into the folder"
        raise refusal(f"{folder} is incomplete", f"missing: {join_names(missing)}", fix)
    params = read_params(folder)
    tensors = to_hugging_face(read_pickled(files), params, folder)
    head, embedding = tensors.get("lm_head.weight"), tensors.get("model.embed_tokens.weight")
    if embedding is None or "model.layers.0.mlp.gate_proj.weight" not in tensors:
        why = "they have no tok_embeddings.weight, or no layer 0"
        raise refusal(f"the consolidated.*.pth in {folder} are incomplete", why, "copy them again")
    if head is not None and head.shape == embedding.shape and torch.equal(head, embedding):
        del tensors["lm_head.weight"]
    config = config_of(params, tensors)
    print(
        f"--> what params.json does not say: {config['max_position_embeddings']} positions, "
        f"rotary scaling {config.get('rope_scaling', {}).get('factor', 'none')}"
    )
    write_json(source / "config.json", config)
    for path in (path for pattern in _LICENCES for path in folder.glob(pattern)):
        shutil.copyfile(path, source / path.name)
    return tensors


def _check_tokenizer(folder: Path) -> None:
    """Refuse a ``tokenizer.model`` of Llama 3, which is a list of tokens in base64.

    Raises:
        UsageError: if it is one, and there is no ``tokenizer.json``.
    """
    path = folder / "tokenizer.model"
    if (folder / "tokenizer.json").is_file() or not path.is_file():
        return
    with path.open("rb") as file:
        words = file.readline(200).split()
    if len(words) == 2 and words[1].isdigit():
        why = "it is Meta's own file of Llama 3, which lacks the special tokens"
        fix = "name a folder with that model's tokenizer.json: --tokenizer_name DIR"
        raise refusal(f"{path} is not read", why, fix)

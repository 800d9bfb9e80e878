"""Tells by ``config.json`` and the files which models this package supports, and names others."""

import re
from collections.abc import Sequence
from pathlib import Path

from llama_recipes_local.configs.model_types import LLAMA, VISION
from llama_recipes_local.errors import Problem
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders.model_config import read_config
from llama_recipes_local.program import command

KNOWN = {
    LLAMA: "Llama 1 to 3.3, and others with a Llama's layers",
    VISION: "Llama 3.2 Vision",
}
"""What ``finetuning.py`` trains, by ``model_type``."""
_OTHERS = {
    "llama4": "transformers, vLLM, and for training torchtune or TRL",
    "gemma": "transformers, vLLM, and for training TRL or Axolotl",
    "mistral": "transformers, vLLM, and for training TRL or Axolotl",
    "mixtral": "transformers, vLLM, and for training TRL or Axolotl",
    "qwen": "transformers, vLLM, and for training TRL or ms-swift",
    "phi": "transformers, vLLM, and for training TRL or Axolotl",
    "deepseek": "transformers, vLLM, and for training LLaMA-Factory or ms-swift",
}
"""What handles models of other types, by the beginning of ``model_type``."""
_ANY = "transformers with PEFT or TRL, where they know this type"
_HEADS = re.compile(r"\w+For(SequenceClassification|TokenClassification|QuestionAnswering)")
GGUF = "*.gguf"
_FORMATS = {
    GGUF: ("GGUF, llama.cpp's format", "convert makes a model's folder of it"),
    "*.onnx": ("ONNX", "ONNX Runtime runs it"),
    "*.engine": ("TensorRT-LLM's engine", "TensorRT-LLM runs it"),
    "*.nemo": ("NeMo's archive", "NeMo trains it and exports it to the Hugging Face layout"),
    "*.npz": ("MLX's older format", "MLX runs it"),
    "tf_model*.h5": ("TensorFlow's format", "older transformers with TensorFlow read it"),
    "flax_model*.msgpack": ("Flax's format", "older transformers with Flax read it"),
}
"""Formats of weights that are not read, by their files: what it is, and what handles it."""


def check_architecture(folder: Path, flag: str, types: Sequence[str] = (LLAMA,)) -> list[Problem]:
    """Return a problem if a folder holds a model that is not supported.

    Args:
        folder: the model's, or a file named in its place; other checks report what cannot be read.
        flag: the flag that names it.
        types: the values of ``model_type`` that can be used.
    """
    if folder.is_file() or not (folder / "config.json").is_file():
        return check_format(folder, flag)
    config = read_config(folder)
    if not config:
        return []
    kind = config.get("model_type")
    classes = config.get("architectures")
    named = [str(each) for each in classes] if isinstance(classes, list) else []
    if kind not in types:
        known = ", ".join(f"{each} ({KNOWN[each]})" for each in types)
        text = f" ({named[0]})" if named else ""
        return [
            Problem(
                f"the model in {folder} is of type {kind}{text}",
                f"the types that can be used here are {known}",
                f"name a Llama: {flag} DIR; this one is handled by {_handled_by(kind)}",
            )
        ]
    if named and all(_HEADS.fullmatch(each) for each in named):
        what = f"the model in {folder} is a {named[0]}"
        why = "it has another head than a language model's, which completes texts"
        return [Problem(what, why, f"name a Llama with such a head: {flag} DIR")]
    return check_format(folder, flag)


def check_format(folder: Path, flag: str) -> list[Problem]:
    """Return a problem if a folder has weights, but none in a supported format.

    Args:
        folder: the model's folder, or a file that was named in its place.
        flag: the flag that names it.
    """
    fix = f"name the model's folder in the Hugging Face layout (*.safetensors): {flag} DIR"
    if folder.is_file():
        for pattern, (title, handler) in _FORMATS.items():
            if folder.match(pattern):
                fix = _converted(folder) if pattern == GGUF else fix
                return [Problem(f"{folder} is in {title}", f"it is not read; {handler}", fix)]
        return [Problem(f"{folder} is a file", f"{flag} takes a model's folder", fix)]
    if any(folder.glob("*.safetensors")):
        return []
    for pattern, (title, handler) in _FORMATS.items():
        if found := sorted(path.name for path in folder.glob(pattern)):
            what = f"{folder} holds weights in {title} only: {join_names(found)}"
            fix = _converted(folder / found[0]) if pattern == GGUF else fix
            return [Problem(what, f"they are not read; {handler}", fix)]
    return []


def _converted(path: Path) -> str:
    return f"make a folder of it, and name that: {command('convert', path, '--out', 'DIR')}"


def _handled_by(kind: object) -> str:
    if kind == VISION:
        return "transformers, vLLM, and for training finetuning.py with a custom_dataset"
    return next((tools for start, tools in _OTHERS.items() if str(kind).startswith(start)), _ANY)

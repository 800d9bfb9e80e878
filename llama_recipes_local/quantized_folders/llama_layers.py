"""Tells which weights of a Llama are quantised, and which others vLLM supports."""

import re

from llama_recipes_local.errors import Problem
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders.exported_model import ExportedModel

LINEAR = re.compile(r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight")
"""Those of the layers; the embedding, the norms and the head stay as they are."""
_KNOWN = re.compile(r"model\.(embed_tokens|norm)\.weight|lm_head\.weight|model\.layers\..*")


def check_names(model: ExportedModel, title: str) -> list[Problem]:
    """Return a problem if a model has weights that vLLM's Llama does not have.

    Args:
        model: the model.
        title: the format's.
    """
    others = [name for name in model.weights if not _KNOWN.fullmatch(name)]
    if not others:
        return []
    what = f"the model in {model.source} cannot be written in {title}"
    return [Problem(what, f"vLLM's Llama has no {join_names(others)}", "--format safetensors")]


def layer_number(name: str) -> int:
    """Return the number of the layer that a tensor belongs to; -1 if none."""
    found = re.match(r"model\.layers\.(\d+)\.", name)
    return int(found[1]) if found else -1

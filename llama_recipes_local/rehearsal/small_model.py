"""The small model of a rehearsal: the user's configuration with two layers and random weights."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llama_recipes_local.console import no_loading_bars
from llama_recipes_local.model_folders.auxiliary_files import copy_auxiliary_files
from llama_recipes_local.model_folders.model_config import load_config, read_config
from llama_recipes_local.run.weight_bits import KEY

if TYPE_CHECKING:
    from transformers import LlamaConfig

LAYERS = 2
WIDTH = 128
"""The hidden size at most, where heads as many as the model has are not too narrow for it."""
HEADS = (16, 8, 4, 2)
"""Sizes of a head, of which one is chosen."""
EVEN = 8
"""What projections' sizes are multiples of, so that weights in 4 bits are whole blocks of 64."""


def small_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a ``config.json`` of two narrow layers with vocabulary, heads and rotation as before.

    Quantised weights are made from whole ones, by the run's flags.
    """
    heads = int(config.get("num_attention_heads") or 1)
    keys = int(config.get("num_key_value_heads") or heads)
    even = [size for size in HEADS if not heads * size % EVEN and not keys * size % EVEN]
    head = next((size for size in even if heads * size <= WIDTH), even[-1])
    sizes = {
        "num_hidden_layers": LAYERS,
        "head_dim": head,
        "hidden_size": heads * head,
        "intermediate_size": 2 * heads * head,
    }
    kept = {name: value for name, value in config.items() if name not in (KEY, "top_layers")}
    return kept | sizes | {"dtype": "float32", "torch_dtype": "float32"}


def make_small_model(source: Path, folder: Path, tokenizer: Path) -> None:
    """Write the small model of a model's folder.

    Args:
        source: the user's model; its weights are not read, and need not be there.
        folder: the new one.
        tokenizer: the folder of the tokenizer.
    """
    import torch
    from transformers import LlamaForCausalLM

    folder.mkdir()
    text = json.dumps(small_config(read_config(source)), indent=2)
    (folder / "config.json").write_text(text, "utf-8")
    torch.manual_seed(0)
    config = load_config(folder, "name another model: --model_name DIR")
    model = LlamaForCausalLM(cast("LlamaConfig", config))
    with no_loading_bars():
        model.save_pretrained(folder)
    copy_auxiliary_files(source, folder, tokenizer)  # for the end tokens, after transformers' own

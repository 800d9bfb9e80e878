"""Llamas in Meta's own layout: ``params.json``, and a ``consolidated.*.pth`` for each GPU.

This is the layout of the reference implementations ``llama`` and ``llama3``. In it, the two numbers
that a rotary embedding rotates are neighbours; in the Hugging Face layout they are half a head
apart. So the rows of the weights of queries and keys are reordered.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llama_recipes_local.errors import refusal
from llama_recipes_local.gguf_files.llama_tensors import unswapped
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders.weight_files import PARAMS

_TOP = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_BY_COLUMNS = ("attention.wo.weight", "feed_forward.w2.weight")
_QUERIES = "layers.0.attention.wq.weight"
_FREQUENCIES = "rope.freqs"
LLAMA_3_ROWS = 128256
_SMALL_32 = (2048, 3072)
"""Widths of Llama 3.2's text models."""


@dataclass(frozen=True)
class MetaParams:
    """What ``params.json`` says."""

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    norm_eps: float
    rope_theta: float
    scaled: bool
    positions: int | None


def read_params(folder: Path) -> MetaParams:
    """Return the parameters of a folder.

    Raises:
        UsageError: if they are missing, or not what they should be.
    """
    path = folder / PARAMS
    try:
        found = json.loads(path.read_text("utf-8"))
        if found.get("moe") or found.get("vision_num_layers", -1) > 0:
            raise ValueError("it is of a model with experts or pictures; text Llamas are converted")
        sizes = [found[name] for name in ("dim", "n_layers", "n_heads")]
        sizes.append(found.get("n_kv_heads") or found["n_heads"])
        if not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError(f"dim, n_layers, n_heads, n_kv_heads are {sizes}")
        return MetaParams(
            dim=sizes[0],
            n_layers=sizes[1],
            n_heads=sizes[2],
            n_kv_heads=sizes[3],
            norm_eps=float(found["norm_eps"]),
            rope_theta=float(found.get("rope_theta", 10000.0)),
            scaled=bool(found.get("use_scaled_rope", False)),
            positions=found.get("max_seq_len"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        fix = f"copy {PARAMS} again, from where the consolidated.*.pth are"
        raise refusal(f"{path} cannot be read", why, fix) from error


def to_hugging_face(
    shards: Sequence[Mapping[str, torch.Tensor]], params: MetaParams, folder: Path
) -> dict[str, torch.Tensor]:
    """Return the tensors by their names in the Hugging Face layout.

    Args:
        shards: the tensors of each file, in the files' order.
        params: the model's.
        folder: the folder, for messages.

    Raises:
        UsageError: if a file is missing, or lacks a tensor that another has, or one is unknown.
    """
    names = {name for shard in shards for name in shard if not name.startswith(_FREQUENCIES)}
    partial = sorted(name for name in names if not all(name in shard for shard in shards))
    unknown = sorted(name for name in names if _renamed(name) is None)
    for why in (("not in every file", partial), ("unknown", unknown)):
        if why[1]:
            fix = "copy the model again, all of its consolidated.*.pth"
            raise refusal(
                f"{folder} is not a Llama in Meta's layout", f"{why[0]}: {join_names(why[1])}", fix
            )
    _check_files(shards, params, folder)
    return {
        str(_renamed(name)): _ordered(name, _joined(name, shards, params), params)
        for name in sorted(names)
    }


def _check_files(
    shards: Sequence[Mapping[str, torch.Tensor]], params: MetaParams, folder: Path
) -> None:
    """Refuse fewer files than the model has: the last ones are in no list of names."""
    rows = sum(shard[_QUERIES].shape[0] for shard in shards if _QUERIES in shard)
    if rows not in (0, params.dim):
        why = f"{len(shards)} consolidated.*.pth have {rows} rows of {_QUERIES}, not {params.dim}"
        raise refusal(f"{folder} is incomplete", why, f"copy all of them, and {PARAMS}")


def _renamed(name: str) -> str | None:
    if name in _TOP:
        return _TOP[name]
    top, _, rest = name.partition(".")
    number, _, part = rest.partition(".")
    base = _LAYER.get(part.removesuffix(".weight"))
    if top != "layers" or not number.isdigit() or base is None:
        return None
    return f"model.layers.{number}.{base}.weight"


def _joined(
    name: str, shards: Sequence[Mapping[str, torch.Tensor]], params: MetaParams
) -> torch.Tensor:
    """Return a tensor of all files: weights are split by rows or columns, norms are in each."""
    parts = [shard[name] for shard in shards]
    if len(parts) == 1 or name.endswith("norm.weight"):
        return parts[0]
    columns = name.endswith(_BY_COLUMNS)
    if name.startswith("tok_embeddings"):  # by columns up to Llama 2, by rows from Llama 3
        columns = parts[0].shape[1] != params.dim
    return torch.cat(parts, dim=int(columns))


def _ordered(name: str, tensor: torch.Tensor, params: MetaParams) -> torch.Tensor:
    """Return a tensor with its rows in the order of the Hugging Face layout."""
    heads = {"attention.wq.weight": params.n_heads, "attention.wk.weight": params.n_kv_heads}
    count = heads.get(name.split(".", 2)[-1])
    return tensor if count is None else unswapped(tensor, count)


def config_of(params: MetaParams, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return ``config.json``; what ``params.json`` does not say follows the model's generation."""
    rows = tensors["model.embed_tokens.weight"].shape[0]
    third = rows == LLAMA_3_ROWS
    positions = params.positions or _positions(params)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": params.dim,
        "intermediate_size": tensors["model.layers.0.mlp.gate_proj.weight"].shape[0],
        "num_hidden_layers": params.n_layers,
        "num_attention_heads": params.n_heads,
        "num_key_value_heads": params.n_kv_heads,
        "rms_norm_eps": params.norm_eps,
        "rope_theta": params.rope_theta,
        "max_position_embeddings": positions,
        "vocab_size": rows,
        "bos_token_id": 128000 if third else 1,
        "eos_token_id": 128001 if third else 2,
        "hidden_act": "silu",
        "tie_word_embeddings": "lm_head.weight" not in tensors,
    }
    if params.scaled:
        config["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": 32.0 if params.dim in _SMALL_32 else 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    return config


def _positions(params: MetaParams) -> int:
    """Return the context of the generation that has these settings; the file does not say it."""
    if params.scaled:
        return 131072
    by_theta = {500000.0: 8192, 1000000.0: 16384}
    return by_theta.get(params.rope_theta, 2048 if params.norm_eps == 1e-6 else 4096)

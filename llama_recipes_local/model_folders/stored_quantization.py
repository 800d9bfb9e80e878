"""What ``quantization_config`` in a model's ``config.json`` says of its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers.quantizers.auto import AutoQuantizationConfig

from llama_recipes_local.errors import Problem, caught, door
from llama_recipes_local.extras import install
from llama_recipes_local.messages import join_names
from llama_recipes_local.run.weight_bits import KEY


@dataclass(frozen=True)
class Method:
    """A way to quantise weights, whose models an adapter can be trained on.

    Attributes:
        title: its name in messages.
        replaces: the tensor of a layer that stands for ``weight``; "weight" if it keeps its name.
        beside: the tensors of a layer that may lie beside it.
        packages: modules that reading it needs, by the names that pip installs.
        mergeable: whether ``merge`` dequantises its weights.
    """

    title: str
    replaces: str
    beside: tuple[str, ...]
    packages: Mapping[str, str]
    mergeable: bool = False


_BITSANDBYTES = {"bitsandbytes": "bitsandbytes"}
_GROUPS = ("qzeros", "scales", "g_idx")
METHODS = {
    "bitsandbytes_4bit": Method(
        "bitsandbytes' 4 bits",
        "weight",
        (
            "weight.absmax",
            "weight.quant_map",
            "weight.nested_absmax",
            "weight.nested_quant_map",
            "weight.quant_state.bitsandbytes__nf4",
            "weight.quant_state.bitsandbytes__fp4",
        ),
        _BITSANDBYTES,
        mergeable=True,
    ),
    "bitsandbytes_8bit": Method(
        "bitsandbytes' 8 bits", "weight", ("SCB", "weight_format"), _BITSANDBYTES, mergeable=True
    ),
    "fp8": Method(
        "FP8",
        "weight",
        ("weight_scale_inv", "activation_scale", "input_scale"),
        {"accelerate": "accelerate"},
        mergeable=True,
    ),
    "gptq": Method("GPTQ", "qweight", _GROUPS, {"gptqmodel": "gptqmodel", "optimum": "optimum"}),
    "awq": Method("AWQ", "qweight", _GROUPS, {"gptqmodel": "gptqmodel"}),
    "compressed-tensors": Method(
        "compressed-tensors",
        "weight_packed",
        (
            "weight_scale",
            "weight_shape",
            "weight_zero_point",
            "weight_g_idx",
            "weight_global_scale",
            "input_scale",
            "input_zero_point",
            "input_global_scale",
            "output_scale",
            "output_zero_point",
        ),
        {"compressed_tensors": "compressed-tensors"},
    ),
}
"""By the names that transformers gives them, with bitsandbytes' two told apart."""


@dataclass(frozen=True)
class StoredQuantization:
    """How a folder's weights are quantised.

    Attributes:
        folder: the folder.
        name: the method's name, as a key of ``METHODS``, or as ``config.json`` has it.
        method: the method; None if adapters cannot be trained on it.
        settings: the configuration.
    """

    folder: Path
    name: str
    method: Method | None
    settings: Mapping[str, Any]

    @property
    def bits(self) -> str | None:
        """The value of ``--quantization`` that means the same; None if there is none."""
        return {"bitsandbytes_4bit": "4bit", "bitsandbytes_8bit": "8bit"}.get(self.name)

    @property
    def what(self) -> str:
        """What was found, in words."""
        title = self.method.title if self.method else self.name
        return f"the weights in {self.folder} are quantised: {title} ({KEY} in config.json)"


def stored_quantization(folder: Path, config: Mapping[str, Any]) -> StoredQuantization | None:
    """Return how a folder's weights are quantised; None if they are not.

    Args:
        folder: the model's folder.
        config: its ``config.json``; values of any type.
    """
    settings = config.get(KEY)
    if settings is None:
        return None
    if not isinstance(settings, dict):
        return StoredQuantization(folder, repr(settings)[:60], None, {})
    name = str(settings.get("quant_method", "bitsandbytes"))
    if name == "bitsandbytes":
        eight = settings.get("load_in_8bit") or settings.get("_load_in_8bit")
        four = settings.get("load_in_4bit") or settings.get("_load_in_4bit")
        name = "bitsandbytes_8bit" if eight else "bitsandbytes_4bit" if four else name
    return StoredQuantization(folder, name, METHODS.get(name), settings)


def check_readable(found: StoredQuantization) -> list[Problem]:
    """Return a problem if quantised weights cannot be read, or not with what is installed."""
    if found.method is None:
        why = "the methods that are read are "
        why += join_names(method.title for method in METHODS.values())
        return [Problem(found.what, why, "name the model before it was quantised")]
    missing = [pip for module, pip in found.method.packages.items() if find_spec(module) is None]
    if not missing:
        with caught() as problems, door(found.what, "copy config.json again"):
            AutoQuantizationConfig.from_dict(dict(found.settings))
        return problems
    why = f"reading them needs {join_names(missing)}, which is not installed"
    fix = f"{install(*missing)}, or name the model before it was quantised"
    return [Problem(found.what, why, fix)]

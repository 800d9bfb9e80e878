"""Well-known models: their shapes, their numbers of weight files, and their mirrors."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from llama_recipes_local.planning.shapes import KNOWN, Shape


@dataclass(frozen=True)
class Published:
    """A model as it is published.

    Attributes:
        name: on the Hugging Face Hub.
        shape: its sizes.
        shards: files of weights; 0 if it is not known.
        modelscope: its name on ModelScope; "" if it is not known to be there.
        pieces: whether it has a ``tokenizer.model``.
        gated: whether a licence is accepted, and an account is needed, before it can be fetched.
        safetensors: whether its weights are in safetensors.
    """

    name: str
    shape: Shape
    shards: int
    modelscope: str = ""
    pieces: bool = False
    gated: bool = False
    safetensors: bool = True


class _Series(NamedTuple):
    """Models whose names differ by size and ending; ``{}`` stands for both."""

    name: str
    modelscope: str
    endings: tuple[str, ...]
    sizes: dict[str, tuple[Shape, int]]
    pieces: bool = False
    gated: bool = False
    safetensors: bool = True


def _known(series: str, **shards: int) -> dict[str, tuple[Shape, int]]:
    return {size.upper(): (KNOWN[f"{series}-{size}"], number) for size, number in shards.items()}


_L2 = {size: KNOWN[f"llama-2-{size}"] for size in ("7b", "13b", "70b")}
_CODE = {
    "7b": (replace(_L2["7b"], vocabulary=32016, positions=16384), 2),
    "13b": (replace(_L2["13b"], vocabulary=32016, positions=16384), 3),
    "34b": (Shape(8192, 22016, 48, 64, 8, 32000, positions=16384), 7),
    "70b": (replace(_L2["70b"], vocabulary=32016), 29),
}
_YI_6B = Shape(4096, 11008, 32, 32, 4, 64000)
_YI = {
    "6B": (_YI_6B, 0),
    "9B": (replace(_YI_6B, layers=48), 0),
    "34B": (Shape(7168, 20480, 60, 56, 8, 64000), 0),
}
_CHINESE_2 = {size: (replace(_L2[size], vocabulary=55296), 0) for size in ("7b", "13b")}
_SMOL = {size: (KNOWN[f"smollm2-{size.lower()}"], 1) for size in ("135M", "360M", "1.7B")}
_CHAT = ("", "-Instruct")

_SERIES = (
    _Series(
        "meta-llama/Llama-2-{}-hf",
        "modelscope/Llama-2-{}-ms",
        ("", "-chat"),
        {"7b": (_L2["7b"], 2), "13b": (_L2["13b"], 3), "70b": (_L2["70b"], 15)},
        pieces=True,
        gated=True,
    ),
    _Series(
        "meta-llama/Meta-Llama-3-{}",
        "LLM-Research/Meta-Llama-3-{}",
        _CHAT,
        _known("llama-3", **{"8b": 4, "70b": 30}),
        gated=True,
    ),
    _Series(
        "meta-llama/Llama-3.1-{}",
        "LLM-Research/Meta-Llama-3.1-{}",
        _CHAT,
        _known("llama-3.1", **{"8b": 4, "70b": 30, "405b": 191}),
        gated=True,
    ),
    _Series(
        "meta-llama/Llama-3.2-{}",
        "LLM-Research/Llama-3.2-{}",
        _CHAT,
        _known("llama-3.2", **{"1b": 1, "3b": 2}),
        gated=True,
    ),
    _Series(
        "meta-llama/Llama-3.3-{}",
        "LLM-Research/Llama-3.3-{}",
        ("-Instruct",),
        _known("llama-3.3", **{"70b": 30}),
        gated=True,
    ),
    _Series(
        "codellama/CodeLlama-{}-hf",
        "AI-ModelScope/CodeLlama-{}-hf",
        _CHAT,
        _CODE,
        pieces=True,
    ),
    _Series(
        "TinyLlama/TinyLlama-{}",
        "AI-ModelScope/TinyLlama-{}",
        ("-Chat-v1.0",),
        {"1.1B": (KNOWN["tinyllama-1.1b"], 1)},
        pieces=True,
    ),
    _Series("HuggingFaceTB/SmolLM2-{}", "", _CHAT, _SMOL),
    _Series("01-ai/Yi-{}", "01ai/Yi-{}", ("", "-Chat"), _YI, pieces=True),
    _Series("01-ai/Yi-1.5-{}", "01ai/Yi-1.5-{}", ("", "-Chat"), _YI, pieces=True),
    _Series(
        "deepseek-ai/DeepSeek-R1-Distill-Llama-{}",
        "deepseek-ai/DeepSeek-R1-Distill-Llama-{}",
        ("",),
        {"8B": (KNOWN["llama-3.1-8b"], 2), "70B": (KNOWN["llama-3.1-70b"], 17)},
    ),
    *(
        _Series(
            f"hfl/chinese-{kind}-2-{{}}",
            f"ChineseAlpacaGroup/chinese-{kind}-2-{{}}",
            ("",),
            _CHINESE_2,
            pieces=True,
            safetensors=False,
        )
        for kind in ("llama", "alpaca")
    ),
    _Series(
        "hfl/llama-3-chinese-{}",
        "ChineseAlpacaGroup/llama-3-chinese-{}",
        ("", "-instruct", "-instruct-v2", "-instruct-v3"),
        {"8b": (KNOWN["llama-3-8b"], 4)},
    ),
    _Series(
        "shenzhi-wang/Llama3-{}",
        "",
        ("-Chinese-Chat",),
        {"8B": (KNOWN["llama-3-8b"], 4)},
    ),
)


def _all() -> Iterator[Published]:
    for series in _SERIES:
        for size, (shape, shards) in series.sizes.items():
            for ending in series.endings:
                yield Published(
                    series.name.format(size + ending),
                    shape,
                    shards,
                    series.modelscope.format(size + ending),
                    series.pieces,
                    series.gated,
                    series.safetensors,
                )


PUBLISHED = {model.name: model for model in _all()}


def find(word: str) -> Published | None:
    """Return the model of a name in any case, also without its owner, or as it was once called."""
    wanted = word.lower().replace("meta-llama-3.1", "llama-3.1").removesuffix("-hf")
    for name, model in PUBLISHED.items():
        known = name.lower().removesuffix("-hf")
        if wanted in (known, known.split("/")[1], known.split("/")[1].removeprefix("meta-")):
            return model
    return None

"""Whether a killed and resumed run equals an uninterrupted one, to the bit."""

import json
from pathlib import Path
from typing import Any

from llama_recipes_local.checkpoints.layout import RANDOM, folder_of, read_manifest

METRICS = "metrics.jsonl"
COMPARED = ("loss", "grad_norm", "lr")


def compare(straight: Path, resumed: Path, step: int) -> str:
    """Return how two runs differ; "" if they do not.

    Args:
        straight: output folder of the uninterrupted run.
        resumed: output folder of the other run, which may have taken steps twice.
        step: the last step, of which both runs have a checkpoint.
    """
    first, second = _losses(straight), _losses(resumed)
    other = next((number for number in first if first[number] != second.get(number)), None)
    if other is not None:
        return f"step {other} has {first[other]}, and {second.get(other)} after it was resumed"
    one, two = (_hashes(folder_of(output, step)) for output in (straight, resumed))
    names = [name for name in one.keys() | two.keys() if one.get(name) != two.get(name)]
    return f"{', '.join(sorted(names))} of checkpoint-{step}" if names else ""


def _losses(output: Path) -> dict[int, dict[str, Any]]:
    """Return what is compared of each step."""
    lines = map(json.loads, (output / METRICS).read_text("utf-8").splitlines())
    return {line["step"]: {name: line.get(name) for name in COMPARED} for line in lines}


def _hashes(checkpoint: Path) -> dict[str, str]:
    """Return the hashes of a checkpoint's tensors and RNG states."""
    files = read_manifest(checkpoint).files
    kept = (name for name in files if name.endswith(".safetensors") or name.startswith(RANDOM))
    return {name: files[name].sha256 for name in kept}

"""The commands that serve a result with vLLM, llama.cpp and Ollama.

``generate``, ``merge`` and ``export`` print them at their end.
"""

import re
import shlex
from pathlib import Path
from typing import Any

from llama_recipes_local.model_folders.adapter_files import read_adapter_config
from llama_recipes_local.model_folders.model_config import read_config
from llama_recipes_local.program import command
from llama_recipes_local.run.weight_bits import KEY
from llama_recipes_local.screen import shown_path
from llama_recipes_local.storage.names import free_path

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values of ``--max-lora-rank`` that vLLM takes; its default is 16."""
_DEFAULT_RANK = 16


def of_folder(folder: Path) -> str:
    """Return the lines for a folder that an export format has written."""
    files = sorted(folder.glob("*.gguf"))
    if not files:
        lines = {"vLLM": _shell("vllm", "serve", folder)}
        if KEY not in read_config(folder):  # quantised weights are not exported again
            gguf = _beside(folder, "gguf")
            lines["llama.cpp, Ollama"] = _own("export", "--model_name", folder, "--out", gguf)
        return _lines(lines)
    # a name of Ollama begins with a letter or digit, which one in Chinese leaves none of
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.name.lower()).strip("-._") or "model"
    return _lines(
        {
            "llama.cpp": _shell("llama-server", "-m", files[0]),
            "Ollama": _shell("ollama", "create", name, "-f", folder / "Modelfile"),
        }
    )


def of_lora_file(file: Path, base: Path, adapter: Path) -> str:
    """Return the lines for an adapter in GGUF, which is used with a file of its base model."""
    gguf = _beside(base, "gguf")
    return _lines(
        {
            "its base": _own("export", "--model_name", base, "--out", gguf),
            "llama.cpp": _shell(
                "llama-server", "-m", gguf / f"{base.name}-Q8_0.gguf", "--lora", file
            ),
            "vLLM": vllm_with_adapter(adapter, base),
        }
    )


def of_adapter(adapter: Path, base: Path) -> str:
    """Return the lines for an adapter that training saved."""
    return _lines(
        {
            "vLLM": vllm_with_adapter(adapter, base),
            "llama.cpp, Ollama": _own(
                *("export", "--adapter", adapter, "--model_name", base),
                *("--out", _beside(adapter, "gguf")),
            ),
        }
    )


def vllm_with_adapter(adapter: Path, base: Path) -> str:
    """Return vLLM's line for an adapter; that of the merged model where vLLM takes no such adapter.

    It takes plain LoRA: no DoRA, no biases, and no layers that were trained whole.
    """
    config = read_adapter_config(adapter)
    if not _is_plain(config):
        merged = _beside(adapter, "merged")
        merge = _own("merge", "--adapter", adapter, "--model", base, "--out", merged)
        return f"{merge} && {_shell('vllm', 'serve', merged)}"
    words: list[str | Path] = ["vllm", "serve", base, "--enable-lora"]
    words += ["--lora-modules", f"{adapter.name}={shown_path(adapter)}"]
    largest = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    if largest > _DEFAULT_RANK:
        words += ["--max-lora-rank", str(min(each for each in VLLM_RANKS if each >= largest))]
    return _shell(*words)


def _is_plain(config: dict[str, Any]) -> bool:
    more = ("use_dora", "modules_to_save", "trainable_token_indices", "lora_bias")
    ranks = [config.get("r") or 0, *(config.get("rank_pattern") or {}).values()]
    return (
        config["peft_type"] == "LORA"
        and not any(config.get(name) for name in more)
        and config.get("bias", "none") == "none"
        and max(ranks) <= VLLM_RANKS[-1]
    )


def _beside(folder: Path, ending: str) -> Path:
    return free_path(folder.with_name(f"{folder.name}-{ending}"))


def _own(*words: str | Path) -> str:
    return command(*map(_shown, words))


def _shell(*words: str | Path) -> str:
    return shlex.join(map(_shown, words))


def _shown(word: str | Path) -> str:
    return shown_path(word) if isinstance(word, Path) else word


def _lines(lines: dict[str, str]) -> str:
    width = max(map(len, lines)) + 1
    shown = (f"    {name + ':':<{width}} {line}" for name, line in lines.items())
    return "\n".join(["--> to serve it:", *shown])

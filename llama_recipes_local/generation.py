"""Lets a fine-tuned model complete a prompt: the quickest way to try an adapter."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llama_recipes_local.adapters import PeftModel
from llama_recipes_local.errors import Problem, UsageError
from llama_recipes_local.models import AutoModelForCausalLM, AutoTokenizer
from llama_recipes_local.parallel import device_type

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen."""

    max_new_tokens: int = 100
    do_sample: bool = False
    """Whether tokens are drawn; without, each is the likeliest."""
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 42

    def options(self) -> dict[str, Any]:
        """Return transformers' options for ``generate``."""
        options: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens,
            "do_sample": self.do_sample,
        }
        if self.do_sample:
            options.update(temperature=self.temperature, top_p=self.top_p)
        return options


class Generator:
    """A base model with an adapter on it, on CUDA if there is a device, else on the CPU."""

    def __init__(self, adapter: Path, base: Path | None = None) -> None:
        """Load the adapter onto its base model.

        Args:
            adapter: the folder that training saved.
            base: the base model's folder; None means the one that the adapter names.

        Raises:
            UsageError: if either folder is not what it should be.
        """
        adapter = adapter.expanduser().resolve()
        named = base_model(adapter)
        base = (base or named).expanduser()
        if not (base / "config.json").is_file():
            raise _no_base_model(base)
        device = torch.device(device_type())
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype).to(device)
        self.model = PeftModel.from_pretrained(model, adapter).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.device = device

    @torch.no_grad()
    def complete(self, prompt: str, sampling: Sampling) -> str:
        """Return what follows the prompt, up to the end of text or ``max_new_tokens``.

        The prompt is tokenised as in training: the beginning of text, then the prompt.
        """
        torch.manual_seed(sampling.seed)
        text = (self.tokenizer.bos_token or "") + prompt
        inputs = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")
        inputs = inputs.to(self.device)
        generated = self.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pad_token_id=self.tokenizer.eos_token_id,
            **sampling.options(),
        )
        completion = generated[0, inputs["input_ids"].shape[1] :]
        return str(self.tokenizer.decode(completion, skip_special_tokens=True))


def base_model(adapter: Path) -> Path:
    """Return the folder of the base model that an adapter names.

    Raises:
        UsageError: if the folder holds no adapter.
    """
    missing = [name for name in ADAPTER_FILES if not (adapter / name).is_file()]
    if missing:
        found = sorted(entry.name for entry in adapter.iterdir()) if adapter.is_dir() else []
        problem = Problem(
            f"--adapter {adapter} has no {' and no '.join(missing)}",
            f"it holds {', '.join(found)}" if found else "there is no such folder, or it is empty",
            "name the --output_dir of a run with --use_peft",
        )
        raise UsageError([problem])
    config = json.loads((adapter / ADAPTER_FILES[0]).read_text("utf-8"))
    return Path(config["base_model_name_or_path"] or "")


def _no_base_model(base: Path) -> UsageError:
    problem = Problem(
        f"the base model is not in {base.resolve()}",
        "an adapter is a small addition to the model it was trained on",
        "name the model's folder: --model_name DIR",
    )
    return UsageError([problem])

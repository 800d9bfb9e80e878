"""Broken model folders: what preflight lets through is loaded, and what it does not is in words."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fuzzing import Case, SilentError, changed_value, damaged, damaged_json, fuzz

from llama_recipes_local.answers.model_loading import load_model, load_tokenizer
from llama_recipes_local.answers.model_source import find_source
from llama_recipes_local.answers.prompt_texts import choose_prompt_template
from llama_recipes_local.commands.merge.adapter import read_adapter
from llama_recipes_local.commands.merge.skeleton import Skeleton
from llama_recipes_local.errors import refuse
from llama_recipes_local.model_folders.model_config import load_config
from llama_recipes_local.model_folders.tensors import model_tensors
from llama_recipes_local.models import AutoTokenizer, LlamaForCausalLM
from llama_recipes_local.preflight.model import check_model, check_tokenizer
from llama_recipes_local.preflight.saved_adapter_rules import check_saved_adapter
from llama_recipes_local.run.resolution import resolve

pytestmark = pytest.mark.slow

CONFIG = ("config.json", "generation_config.json")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
# what the files may have beside what a model of transformers 5 is saved with
MORE: dict[str, dict[str, Any]] = {
    "config.json": {
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0},
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
        "auto_map": {"AutoConfig": "a.B"},
        "head_dim": 16,
        "pretraining_tp": 2,
        "layer_types": ["full_attention"],
        "torch_dtype": "float16",
        "attn_implementation": "eager",
        "id2label": {"0": "a"},
    },
    "generation_config.json": {"temperature": 0.5, "do_sample": True, "stop_strings": ["a"]},
    "tokenizer_config.json": {
        "chat_template": "{{ messages[0].content }}",
        "tokenizer_class": "LlamaTokenizer",
        "added_tokens_decoder": {"3": {"content": "<x>", "special": True}},
        "model_max_length": 512,
        "auto_map": {"AutoTokenizer": ["a.B", None]},
        "add_bos_token": True,
        "extra_special_tokens": {"image_token": "<image>"},
        "split_special_tokens": False,
    },
    "special_tokens_map.json": {"bos_token": "<s>", "eos_token": {"content": "</s>"}},
}


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Breaking:
    """Breaks files of a folder, and puts them back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sound = contents(folder)

    def __call__(self, case: Case, names: tuple[str, ...]) -> str:
        """Break a file; return its name."""
        for name in [path.name for path in self.folder.iterdir()]:
            if name not in self._sound:
                (self.folder / name).unlink()
        for name, data in self._sound.items():
            if (self.folder / name).read_bytes() != data:
                (self.folder / name).write_bytes(data)
        rng = case.random
        name = rng.choice(names)
        value = json.loads(self._sound.get(name, b"{}")) | self._more(rng, name)
        data = damaged_json(rng, value)
        (self.folder / name).write_bytes(data)
        case.given += [name, data]
        return name

    def _more(self, rng: random.Random, name: str) -> dict[str, Any]:
        more = MORE.get(name, {})
        names = rng.sample(sorted(more), rng.choice([0, 0, 1, 2])) if more else []
        return {each: changed_value(rng, more[each]) for each in names if each in more}


def unchanged(folder: Path, look: Callable[[], Any]) -> Any:
    """Return what ``look`` returns, which must leave the folder as it is."""
    before = contents(folder)
    try:
        return look()
    finally:
        if contents(folder) != before:
            raise SilentError("the folder was changed")


def test_configurations_of_models(model: Path) -> None:
    breaking = Breaking(model)
    tokens = torch.tensor([[1, 2, 3]])

    def attack(case: Case) -> None:
        breaking(case, CONFIG)
        run = resolve({"model_name": str(model), "context_length": 64, "use_peft": True})
        case.problems = unchanged(model, lambda: check_model(run))
        refuse(case.problems)
        find_source(model=model)
        loaded = LlamaForCausalLM.from_pretrained(model)
        logits = loaded(input_ids=tokens).logits
        if not torch.isfinite(logits).all():
            raise SilentError("the model computes NaN")

    assert fuzz("config.json", 200, attack)["used"] > 10


def test_tokenizers(model: Path) -> None:
    breaking = Breaking(model)

    def attack(case: Case) -> None:
        breaking(case, TOKENIZER)
        run = resolve({"model_name": str(model)})
        case.problems = unchanged(model, lambda: check_tokenizer(run))
        refuse(case.problems)
        tokenizer: Any = AutoTokenizer.from_pretrained(model)
        ids = tokenizer("some text", add_special_tokens=False)["input_ids"]
        tokenizer.decode(ids)
        load_tokenizer(find_source(model=model))

    assert fuzz("tokenizers", 250, attack)["used"] > 10


def test_weights(model: Path) -> None:
    sound = (model / "model.safetensors").read_bytes()
    length = int.from_bytes(sound[:8], "little")
    header = json.loads(sound[8 : 8 + length])

    def attack(case: Case) -> None:
        rng = case.random
        if rng.random() < 0.5:
            text = damaged_json(rng, header)
            data = len(text).to_bytes(8, "little") + text + sound[8 + length :]
        else:
            data = damaged(rng, sound[: 8 + length]) + sound[8 + length :]
        case.given.append(data[:2000])
        (model / "model.safetensors").write_bytes(data)
        case.problems = check_model(resolve({"model_name": str(model), "context_length": 64}))
        refuse(case.problems)
        LlamaForCausalLM.from_pretrained(model)

    fuzz("headers of weights", 150, attack)


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path) -> Path:
    import peft
    from transformers import AutoModelForCausalLM

    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    folder = tmp_path / "adapter"
    peft.get_peft_model(base, config).save_pretrained(folder)
    recorded = {"train_config": {"model_name": str(tiny_model), "tokenizer_name": None}}
    (folder / "run_config.json").write_text(json.dumps(recorded))
    template = {"kind": "prompt", "template": "Say {}", "complete": False, "begins": True}
    (folder / "prompt_template.json").write_text(json.dumps(template))
    return folder


ADAPTER = ("adapter_config.json", "run_config.json", "prompt_template.json")


def test_adapters(adapter: Path, tiny_model: Path) -> None:
    breaking = Breaking(adapter)
    base = model_tensors(tiny_model, "--model_name")

    def attack(case: Case) -> None:
        name = breaking(case, ADAPTER)
        flags = {"model_name": str(tiny_model), "context_length": 64, "use_peft": True}
        if name == "adapter_config.json" and case.random.random() < 0.4:
            run = resolve(flags | {"from_peft_checkpoint": str(adapter)})
            case.problems = check_saved_adapter(run)
            return
        if name == "adapter_config.json" and case.random.random() < 0.4:
            Skeleton(load_config(tiny_model, ""), read_adapter(adapter), base)
            return
        source = find_source(adapter, model=tiny_model)
        tokenizer = load_tokenizer(source)
        template, _ = choose_prompt_template(source, tokenizer, False, None, None)
        if template is not None:
            template.of_text("Hi", tokenizer)
        if name == "adapter_config.json":
            load_model(source)

    fuzz("adapters", 200, attack)

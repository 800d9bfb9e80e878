"""Settings of PEFT by tied and untied models: the merged folder computes what the adapter does."""

import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from llama_recipes_local import cli

pytestmark = pytest.mark.slow

SOME = ["q_proj", "v_proj"]
BOTH = ["embed_tokens", "lm_head"]
SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {},
    "every linear layer": {"target_modules": "all-linear"},
    "regex": {"target_modules": r".*\.(q|k)_proj", "exclude_modules": r".*\.0\..*\.q_proj"},
    "parameters": {"target_parameters": ["mlp.up_proj.weight"]},
    "dora": {"use_dora": True},
    "qalora": {"use_qalora": True, "qalora_group_size": 8},
    "biases": {"bias": "all"},
    "bias of lora": {"lora_bias": True},
    "norms": {"modules_to_save": ["norm", "input_layernorm"]},
    "embedding": {"target_modules": [*SOME, "embed_tokens"]},
    "head": {"target_modules": [*SOME, "lm_head"]},
    "head, dora": {"target_modules": [*SOME, "lm_head"], "use_dora": True},
    "both": {"target_modules": [*SOME, *BOTH]},
    "both, rslora": {"target_modules": [*SOME, *BOTH], "use_rslora": True},
    "saved embedding": {"modules_to_save": ["embed_tokens"]},
    "saved head": {"modules_to_save": ["lm_head"]},
    "saved both": {"modules_to_save": BOTH},
    "tokens": {"trainable_token_indices": [3, 7, 90]},
    "tokens of the embedding": {"trainable_token_indices": {"embed_tokens": [3, 7]}},
    "tokens of the head": {"trainable_token_indices": {"lm_head": [3, 7]}},
    "tokens of both": {"trainable_token_indices": {"embed_tokens": [3, 7], "lm_head": [3, 7]}},
    "other tokens": {"trainable_token_indices": {"embed_tokens": [3, 7], "lm_head": [4, 90]}},
    "tied tokens": {"trainable_token_indices": [3, 7], "ensure_weight_tying": True},
    "tied embedding": {"target_modules": [*SOME, "embed_tokens"], "ensure_weight_tying": True},
    "tied head": {"target_modules": [*SOME, "lm_head"], "ensure_weight_tying": True},
    "tied both": {"target_modules": [*SOME, *BOTH], "ensure_weight_tying": True},
    "tied, patterns": {
        "target_modules": [*SOME, "embed_tokens"],
        "ensure_weight_tying": True,
        "rank_pattern": {"embed_tokens": 2},
        "alpha_pattern": {"embed_tokens": 3},
    },
    "tied saved embedding": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "tied saved head": {"modules_to_save": ["lm_head"], "ensure_weight_tying": True},
    "tied saved both": {"modules_to_save": BOTH, "ensure_weight_tying": True},
}
if hasattr(peft.tuners.lora.config, "KasaConfig"):  # not in PEFT 0.20
    SETTINGS["kasa"] = {"kasa_config": peft.tuners.lora.config.KasaConfig()}
# Where PEFT's merge adds changes of head and embedding to the one tensor that both are.
MERGED_TWICE = {
    "embedding",
    "head",
    "head, dora",
    "both",
    "both, rslora",
    "tokens of the head",
    "other tokens",
    "tied embedding",
    "tied head",
    "tied both",
    "tied, patterns",
}
# Those that change a tied head and its embedding differently, which no tied model computes.
UNTYING = {
    *("embedding", "head", "head, dora", "both", "both, rslora"),
    *("saved embedding", "saved head", "saved both", "tokens of the head", "other tokens"),
}
IDS = torch.cat([torch.arange(3, 40), torch.tensor([90, 7, 3, 4])])[None]


@pytest.fixture(scope="module")
def bases(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Small models with biases in float32, one of them tied."""
    folders = {}
    for tied in (False, True):
        folder = folders[tied] = tmp_path_factory.mktemp("models") / f"tied-{tied}"
        shutil.copytree(tiny_model, folder)
        config = transformers.AutoConfig.from_pretrained(tiny_model)
        config.tie_word_embeddings = tied
        config.attention_bias = True
        torch.manual_seed(3)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folders


def load(folder: Path) -> Any:
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values()), info
    return model.eval()


def save_adapter(base: Path, folder: Path, **options: Any) -> Any:
    """Save an adapter whose every trained tensor changes the model; return the adapted model."""
    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=4, lora_alpha=6, task_type="CAUSAL_LM", **({"target_modules": SOME} | options)
    )
    model = peft.get_peft_model(load(base), config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.05)
    model.save_pretrained(str(folder))
    return model.eval()


def merge(adapter: Path, base: Path, out: Path) -> int:
    return cli.main(["merge", f"--adapter={adapter}", f"--model={base}", f"--out={out}"])


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("setting", SETTINGS)
@torch.no_grad()
def test_the_merged_model_computes_what_the_adapter_does(
    setting: str, tied: bool, bases: dict[bool, Path], tmp_path: Path
) -> None:
    base, adapter, out = bases[tied], tmp_path / "adapter", tmp_path / "out"
    adapted = save_adapter(base, adapter, **SETTINGS[setting])
    expected = adapted(IDS).logits
    assert (expected - load(base)(IDS).logits).abs().max() > 1e-3
    assert merge(adapter, base, out) == 0
    merged = load(out)
    # float32 sums in another order, of logits below 10
    assert torch.allclose(merged(IDS).logits, expected, rtol=0, atol=1e-5)
    assert merged.config.tie_word_embeddings is (tied and setting not in UNTYING)
    if not (tied and setting in MERGED_TWICE):
        by_peft = peft.PeftModel.from_pretrained(load(base), str(adapter)).merge_and_unload()
        assert torch.allclose(merged(IDS).logits, by_peft(IDS).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_bias_of_lora_is_refused_where_layers_have_none(
    tied: bool, bases: dict[bool, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PEFT's own merge raises a RuntimeError."""
    base, adapter, out = bases[tied], tmp_path / "adapter", tmp_path / "out"
    save_adapter(base, adapter, target_modules=["q_proj", "up_proj"], lora_bias=True)
    assert merge(adapter, base, out) == 2
    error = capsys.readouterr().err
    assert "has lora_bias, which cannot be merged into this model" in error
    assert "no bias to add it to: model.layers.0.mlp.up_proj" in error and "q_proj" not in error
    assert f"generate --adapter {adapter}" in error
    assert not out.exists()

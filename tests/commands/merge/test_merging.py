"""The merged folder equals the result of PEFT's ``merge_and_unload`` to the bit."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from llama_recipes_local import cli, models
from llama_recipes_local.model_folders import save as writing
from llama_recipes_local.run import activate, resolution

pytestmark = pytest.mark.slow

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": ["q_proj", "v_proj"]},
    "every linear layer": {"target_modules": "all-linear"},
    "rslora": {"use_rslora": True, "target_modules": ALL_LINEAR},
    "dora": {"use_dora": True, "target_modules": ALL_LINEAR},
    "patterns": {
        "target_modules": ALL_LINEAR,
        "rank_pattern": {"v_proj": 2, r"^model\.layers\.1\..*down_proj": 16},
        "alpha_pattern": {"q_proj": 3},
    },
    "one layer": {"target_modules": ["q_proj"], "layers_to_transform": [1]},
    "biases": {"target_modules": ALL_LINEAR, "bias": "all"},
    "biases of adapted layers": {"target_modules": ["q_proj"], "bias": "lora_only"},
    "lora bias": {"target_modules": ["q_proj"], "lora_bias": True},
    "embedding and head": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "dora on the embedding": {"target_modules": ["embed_tokens"], "use_dora": True},
    "modules to save": {
        "target_modules": ["q_proj"],
        "modules_to_save": ["embed_tokens", "lm_head", "norm", "input_layernorm"],
    },
    "a block to save": {"target_modules": ["q_proj"], "modules_to_save": ["mlp"]},
    "single tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 7, 900]},
}
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def biased_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in bfloat16 with biases, in many files, with a generation configuration."""
    folder = tmp_path_factory.mktemp("models") / "biased"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").unlink()
    config = transformers.AutoConfig.from_pretrained(tiny_model)
    config.attention_bias = config.mlp_bias = True
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(config).bfloat16()
    randomize(model, "bias")
    model.generation_config.top_p = 0.25
    model.generation_config.do_sample = True
    model.save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture(scope="module")
def tied_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model whose head is its embedding, as in the smaller Llamas 3.2."""
    folder = tmp_path_factory.mktemp("models") / "tied"
    shutil.copytree(tiny_model, folder)
    config = transformers.AutoConfig.from_pretrained(tiny_model, tie_word_embeddings=True)
    torch.manual_seed(2)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    return folder


def randomize(model: Any, *words: str) -> None:
    """Give the parameters with one of the words in their names values that change a lot."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if any(word in name for word in words):
                weight.copy_(torch.randn(weight.shape, generator=generator))


def save_adapter(base: Path, folder: Path, rows: int | None = None, **options: Any) -> Path:
    """Save an adapter whose every tensor changes the model."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    config = peft.LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **options)
    adapted = peft.get_peft_model(model, config)
    randomize(adapted, "lora_", "bias", "modules_to_save", "trainable_tokens_delta")
    adapted.save_pretrained(str(folder))
    return folder


def merged_by_peft(base: Path, adapter: Path, rows: int | None = None, **options: Any) -> Any:
    options.setdefault("dtype", "auto")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, **options)
    if options.get("quantization_config"):
        model = model.dequantize()
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    return peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()


def merge(*words: object) -> None:
    assert cli.main(["merge", *map(str, words)]) == 0


def load(folder: Path) -> Any:
    """Load a folder with plain transformers; no tensor may be missing or unexpected."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", output_loading_info=True
    )
    assert not any(info.values()), info
    return model


def assert_same(ours: Any, theirs: Any) -> None:
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    for name, tensor in ours.state_dict().items():
        assert tensor.dtype == expected[name].dtype, name
        assert tensor.equal(expected[name]), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_folder_equals_what_peft_merges(
    variant: str, biased_model: Path, tmp_path: Path
) -> None:
    adapter = save_adapter(biased_model, tmp_path / "adapter", **VARIANTS[variant])
    merge("--adapter", adapter, "--model", biased_model, "--out", tmp_path / "out")
    theirs = merged_by_peft(biased_model, adapter)
    start = transformers.AutoModelForCausalLM.from_pretrained(biased_model, dtype="auto")
    changed = [
        name
        for name, tensor in start.state_dict().items()
        if not tensor.equal(theirs.state_dict()[name])
    ]
    assert changed
    assert_same(load(tmp_path / "out"), theirs)


def test_an_adapter_saved_in_half_precision_is_multiplied_in_float32(
    biased_model: Path, tmp_path: Path
) -> None:
    adapter = save_adapter(biased_model, tmp_path / "adapter", target_modules="all-linear")
    file = adapter / "adapter_model.safetensors"
    save_file({n: t.bfloat16() for n, t in load_file(file).items()}, file, {"format": "pt"})
    merge("--adapter", adapter, "--model", biased_model, "--out", tmp_path / "out")
    assert_same(load(tmp_path / "out"), merged_by_peft(biased_model, adapter))


def test_a_large_model_is_written_file_by_file(
    biased_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file is larger than a shard."""
    monkeypatch.setattr(writing, "SHARD_BYTES", 140_000)
    before = {path.name: path.read_bytes() for path in biased_model.iterdir()}
    adapter = save_adapter(biased_model, tmp_path / "adapter", target_modules="all-linear")
    merge("--adapter", adapter, "--model", biased_model, "--out", tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    made = [sum(tensor.nbytes for tensor in load_file(file).values()) for file in files]
    assert len(made) == 4 and max(made) <= 140_000
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(made)
    assert set(index["weight_map"].values()) == {path.name for path in files}
    assert_same(load(tmp_path / "out"), merged_by_peft(biased_model, adapter))
    assert {path.name: path.read_bytes() for path in biased_model.iterdir()} == before


def test_tokenizer_and_auxiliary_files_are_copied(biased_model: Path, tmp_path: Path) -> None:
    adapter = save_adapter(biased_model, tmp_path / "adapter")
    merge("--adapter", adapter, "--model", biased_model, "--out", tmp_path / "out")
    theirs, ours = map(transformers.AutoTokenizer.from_pretrained, (biased_model, tmp_path / "out"))
    assert ours("She go to school.") == theirs("She go to school.")
    assert load(tmp_path / "out").generation_config.top_p == 0.25
    changed = {"tie_word_embeddings", "vocab_size"}
    theirs, ours = (
        json.loads((folder / "config.json").read_text())
        for folder in (biased_model, tmp_path / "out")
    )
    assert {
        key: value for key, value in theirs.items() if key not in changed
    }.items() <= ours.items()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("named", ["model_name", "tokenizer_name"])
def test_the_tokenizer_is_found_by_the_record_of_the_base_models_run(
    named: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training saves no tokenizer with a full model; ``generate`` finds it in the same way."""
    base = shutil.copytree(tiny_model, tmp_path / "run")
    for path in base.glob("tokenizer*"):
        path.unlink()
    record = {"train_config": {"model_name": "/no/such/model", named: str(tiny_model)}}
    (base / "run_config.json").write_text(json.dumps(record))
    adapter = save_adapter(base, tmp_path / "adapter")
    merge("--adapter", adapter, "--model", base, "--out", tmp_path / "out")
    theirs, ours = map(transformers.AutoTokenizer.from_pretrained, (tiny_model, tmp_path / "out"))
    assert ours("She go to school.") == theirs("She go to school.")
    assert f"the tokenizer is copied from {tiny_model}\n" in capsys.readouterr().out


def test_the_dtype_may_be_chosen(biased_model: Path, tmp_path: Path) -> None:
    adapter = save_adapter(biased_model, tmp_path / "adapter")
    words = ("--model", biased_model, "--out", tmp_path / "out", "--dtype", "float32")
    merge("--adapter", adapter, *words)
    assert_same(load(tmp_path / "out"), merged_by_peft(biased_model, adapter, dtype=torch.float32))


def test_the_base_model_may_have_moved(biased_model: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(biased_model, tmp_path / "base")
    adapter = save_adapter(tmp_path / "base", tmp_path / "adapter")
    (tmp_path / "base").rename(moved)
    merge("--adapter", adapter, "--model", moved, "--out", tmp_path / "out")
    assert_same(load(tmp_path / "out"), merged_by_peft(moved, adapter))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_an_adapter_may_come_with_a_larger_vocabulary(
    tied: bool, tiny_model: Path, tied_model: Path, tmp_path: Path
) -> None:
    base = tied_model if tied else tiny_model
    adapter = save_adapter(base, tmp_path / "adapter", rows=1003)
    merge("--adapter", adapter, "--model", base, "--out", tmp_path / "out")
    merged = load(tmp_path / "out")
    assert merged.config.vocab_size == 1003
    assert merged.config.tie_word_embeddings is tied
    assert_same(merged, merged_by_peft(base, adapter, rows=1003))


def test_a_tied_head_stays_tied(tied_model: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tied_model, tmp_path / "adapter", target_modules=ALL_LINEAR)
    merge("--adapter", adapter, "--model", tied_model, "--out", tmp_path / "out")
    merged = load(tmp_path / "out")
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    assert "lm_head.weight" not in load_file(tmp_path / "out/model.safetensors")
    assert_same(merged, merged_by_peft(tied_model, adapter))


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"modules_to_save": ["lm_head"]},
    ],
    ids=["embedding", "head", "saved head"],
)
def test_a_tied_head_that_the_adapter_unties_computes_as_the_adapter_does(
    options: dict[str, Any], tied_model: Path, tmp_path: Path
) -> None:
    """PEFT's own merge would change head and embedding both, so the logits are compared."""
    adapter = save_adapter(tied_model, tmp_path / "adapter", **options)
    merge("--adapter", adapter, "--model", tied_model, "--out", tmp_path / "out")
    merged = load(tmp_path / "out")
    assert merged.config.tie_word_embeddings is False
    base = transformers.AutoModelForCausalLM.from_pretrained(tied_model)
    adapted = peft.PeftModel.from_pretrained(base, str(adapter)).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        theirs, ours = adapted(ids).logits, merged(ids).logits
    # the sums are taken in another order: float32 keeps 24 bits, and logits are some tens here
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-3)


FOUR_BIT = [("nf4", True), ("fp4", False)]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "double"), FOUR_BIT)
def test_an_adapter_is_merged_into_quantized_weights(
    kind: str, double: bool, biased_model: Path, tmp_path: Path
) -> None:
    """By flags, by the run's record, and from a folder with 4-bit weights."""
    adapter = save_adapter(biased_model, tmp_path / "adapter", target_modules=ALL_LINEAR)
    quantization = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    theirs = merged_by_peft(biased_model, adapter, quantization_config=quantization)
    words = ("--adapter", adapter, "--model", biased_model)
    flags = ("--quantization", "4bit", "--quant_type", kind)
    merge(*words, *flags, *["--use_double_quant"] * double, "--out", tmp_path / "flags")
    assert_same(load(tmp_path / "flags"), theirs)

    record = {
        "train_config": {"quantization": "4bit"},
        "quantization_config": {"quant_type": kind, "use_double_quant": double},
    }
    (adapter / "run_config.json").write_text(json.dumps(record))
    merge(*words, "--out", tmp_path / "record")
    assert_same(load(tmp_path / "record"), theirs)
    merge(*words, "--quantization", "none", "--out", tmp_path / "plain")
    assert_same(load(tmp_path / "plain"), merged_by_peft(biased_model, adapter))

    stored = tmp_path / "stored"
    packed = transformers.AutoModelForCausalLM.from_pretrained(
        biased_model, dtype="auto", quantization_config=quantization
    )
    packed.save_pretrained(stored)
    assert load_file(stored / "model.safetensors")["model.layers.0.mlp.up_proj.weight"].dtype in (
        torch.uint8,
        torch.bfloat16,
    )
    merge("--adapter", adapter, "--model", stored, "--out", tmp_path / "unpacked")
    assert "quantization_config" not in json.loads((tmp_path / "unpacked/config.json").read_text())
    assert_same(load(tmp_path / "unpacked"), theirs)


def test_new_layers_on_top_are_not_quantized(tiny_model: Path, tmp_path: Path) -> None:
    """Training does not quantise them either."""
    with activate(resolution.resolve({"top_layers": 2})):
        model = models.LlamaForCausalLM.from_pretrained(tiny_model)
    randomize(model, "top_layers")
    model.save_pretrained(tmp_path / "base")
    adapter = save_adapter(tiny_model, tmp_path / "adapter", target_modules=["q_proj"])
    words = ("--adapter", adapter, "--model", tmp_path / "base", "--out", tmp_path / "out")
    merge(*words, "--quantization", "4bit")
    base, merged = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "out"))
    same = {name for name, tensor in base.items() if merged[name].equal(tensor)}
    on_top = {name for name in base if "top_layers" in name}
    assert len(on_top) == 4
    assert on_top <= same
    assert not any("proj" in name for name in same)

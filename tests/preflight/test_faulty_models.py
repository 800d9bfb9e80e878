"""Faulty model folders: each gets one report, before anything is tokenised or written."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llama_recipes_local.answers.model_source import find_source
from llama_recipes_local.errors import UsageError
from llama_recipes_local.finetuning import main
from llama_recipes_local.models import LlamaForCausalLM

Spoil = Callable[[Path], object]
Tensors = dict[str, torch.Tensor]

EMBEDDING = "model.embed_tokens.weight"
NORM = "model.norm.weight"
WRITING = ("self_attn.o_proj", "mlp.down_proj")
UP = "model.layers.1.mlp.up_proj.weight"


def change(folder: Path, edit: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def weights(edit: Callable[[Tensors], object]) -> Spoil:
    return lambda folder: change(folder, edit)


def without(part: str) -> Spoil:
    def drop(tensors: Tensors) -> None:
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    return weights(drop)


def renamed(old: str, new: str) -> Spoil:
    def rename(tensors: Tensors) -> None:
        for name in [name for name in tensors if old in name]:
            tensors[name.replace(old, new)] = tensors.pop(name)

    return weights(rename)


def spoiled(name: str, number: float) -> Spoil:
    def put(tensors: Tensors) -> None:
        rows = len(tensors[name])
        tensors[name][rows // 2] = number

    return weights(put)


def zero(part: str) -> Spoil:
    return weights(lambda tensors: [each.zero_() for name, each in tensors.items() if part in name])


def with_tensor(name: str, tensor: torch.Tensor) -> Spoil:
    return weights(lambda tensors: tensors.update({name: tensor}))


def in_json(file: str, **values: Any) -> Spoil:
    def write(folder: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        path.write_text(json.dumps(content | values), "utf-8")

    return write


def with_text(file: str, text: str) -> Spoil:
    return lambda folder: (folder / file).write_text(text, "utf-8")


def shards_without_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")


def only(file: str) -> Spoil:
    return lambda folder: (folder / "model.safetensors").rename(folder / file)


def meta_layout(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "consolidated.00.pth")
    (folder / "params.json").write_text("{}")


def outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = {"weight_map": {"a": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def untied(folder: Path) -> None:
    in_json("config.json", tie_word_embeddings=True)(folder)


def two_sets(folder: Path) -> None:
    shard = "model-00001-of-00001.safetensors"
    tensors = load_file(folder / "model.safetensors")
    save_file({name: value + 1 for name, value in tensors.items()}, folder / shard)
    index = {"weight_map": dict.fromkeys(tensors, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def shards(folder: Path, named: int) -> None:
    """Make two shards of the weights that both have the norm, of which the index names some."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = [f"model-{number:05}-of-00002.safetensors" for number in (1, 2)]
    save_file(tensors, folder / files[0], metadata={"format": "pt"})
    save_file({NORM: tensors[NORM] + 1}, folder / files[1], metadata={"format": "pt"})
    index = {"weight_map": dict.fromkeys(tensors, files[0]) | {NORM: files[named - 1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def moved_tensor(folder: Path) -> None:
    """Make two shards of the weights, of which the index says another for two tensors."""
    tensors = load_file(folder / "model.safetensors")
    shards(folder, 1)
    first, second = sorted(folder.glob("model-0*"))
    head = {NORM: tensors.pop(NORM), "lm_head.weight": tensors.pop("lm_head.weight")}
    save_file(tensors, first, metadata={"format": "pt"})
    save_file(head, second, metadata={"format": "pt"})
    index = {"weight_map": dict.fromkeys(tensors, first.name) | dict.fromkeys(head, first.name)}
    index["weight_map"]["model.embed_tokens.weight"] = second.name
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def in_place_of(file: str, put: Spoil) -> Spoil:
    def replace(folder: Path) -> None:
        (folder / file).unlink()
        put(folder / file)

    return replace


def adapter_inside(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "adapter_model.safetensors").touch()


DEEP = "[" * 100_000
RIGHT = "cannot be right"
MATCH = "do not match its config.json"
CONFIG = "config.json"
QUANTIZED = "the weights in {folder} are quantised: "

# the name of a fault: how it is made, what the report says first, and what it says then
FAULTS: dict[str, tuple[Spoil, str, str]] = {
    "a layer missing": (without("model.layers.1."), MATCH, "num_hidden_layers 2, the files 1"),
    "a layer too many": (in_json(CONFIG, num_hidden_layers=1), MATCH, "the files 2 layers"),
    "100000 layers": (in_json(CONFIG, num_hidden_layers=100_000), MATCH, "the files 2 layers"),
    "a tensor missing": (without(UP), MATCH, f"missing: {UP}"),
    "the head missing": (without("lm_head"), MATCH, "missing: lm_head.weight"),
    "the embedding missing": (without("embed_tokens"), MATCH, "missing: model.embed_tokens.weight"),
    "a tensor left over": (
        with_tensor("model.layers.1.mlp.up_proj.bias", torch.zeros(128)),
        MATCH,
        "left over: model.layers.1.mlp.up_proj.bias",
    ),
    "another prefix": (renamed("model.layers", "transformer.h"), MATCH, "the files 0 layers"),
    "a renamed tensor": (
        renamed("up_proj", "up"),
        MATCH,
        "left over: model.layers.0.mlp.up.weight",
    ),
    "a renamed layer that gets LoRA": (renamed("q_proj", "query"), MATCH, "q_proj.weight"),
    "a wrong shape": (
        with_tensor(UP, torch.zeros(64, 128)),
        MATCH,
        f"shape mismatch: {UP} of shape (64, 128) instead of (128, 64)",
    ),
    "another vocabulary": (in_json(CONFIG, vocab_size=999), MATCH, "shape mismatch: model.embed"),
    "another width": (in_json(CONFIG, intermediate_size=96), MATCH, "instead of (96, 64)"),
    "biases that the files lack": (in_json(CONFIG, attention_bias=True), MATCH, "q_proj.bias"),
    "rounded to integers": (
        weights(lambda each: each.update({UP: each[UP].to(torch.int8)})),
        MATCH,
        f"neither floats nor quantised by a quantization_config: {UP} is I8",
    ),
    "float8 without scales": (
        weights(lambda each: each.update({UP: each[UP].to(torch.float8_e4m3fn)})),
        MATCH,
        f"{UP} is F8_E4M3",
    ),
    "tied, with two values": (untied, MATCH, "tie_word_embeddings is on, and lm_head.weight"),
    "half copied": (
        lambda folder: (folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()[:5000]
        ),
        "model.safetensors is not a complete safetensors file",
        "copy the file again",
    ),
    "a pointer of Git LFS": (
        with_text("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"),
        "is a pointer of Git LFS, not the file itself",
        "lfs pull",
    ),
    "a tokenizer that is a pointer": (
        with_text("tokenizer.json", "version https://git-lfs.github.com/spec/v1\n"),
        "tokenizer.json is a pointer of Git LFS",
        "lfs pull",
    ),
    "a configuration that is a pointer": (
        with_text(CONFIG, "version https://git-lfs.github.com/spec/v1\n"),
        "config.json is a pointer of Git LFS",
        "lfs pull",
    ),
    "a configuration that is a list": (
        with_text(CONFIG, "[1]"),
        "config.json is not a JSON object",
        "it is [1]",
    ),
    "a configuration that is a pipe": (
        in_place_of(CONFIG, os.mkfifo),
        "config.json is not a file",
        "it is a pipe or a device",
    ),
    "weights that are a folder": (
        in_place_of("model.safetensors", Path.mkdir),
        "model.safetensors is not a file",
        "it is a folder",
    ),
    "weights that are a pipe": (
        in_place_of("model.safetensors", os.mkfifo),
        "model.safetensors is not a file",
        "it is a pipe or a device",
    ),
    "a link to what is gone": (
        in_place_of("model.safetensors", lambda path: path.symlink_to("gone")),
        "model.safetensors is not a file",
        "it is a link to gone, which is not there",
    ),
    "a download that did not end": (
        lambda folder: (folder / "model.safetensors.aria2").touch(),
        "are not there in whole",
        "model.safetensors.aria2",
    ),
    "weights twice": (two_sets, "holds two sets of weights", "model-00001-of-00001.safetensors"),
    "quantised in the configuration only": (
        in_json(CONFIG, quantization_config={"load_in_4bit": True}),
        MATCH,
        "all tensors are plain floats",
    ),
    "shards without an index": (
        shards_without_index,
        "has no model.safetensors.index.json",
        "copy model.safetensors.index.json, model-00002-of-00002.safetensors there too",
    ),
    "a shard too many": (
        lambda folder: shards(folder, 1),
        "holds shards that model.safetensors.index.json does not name",
        "model-00002-of-00002.safetensors",
    ),
    "a tensor in two shards": (
        lambda folder: shards(folder, 2),
        "has a tensor in two of its weight files",
        "model.norm.weight is in model-00001-of-00002.safetensors and model-00002",
    ),
    "a tensor in another shard than the index says": (
        moved_tensor,
        "model.safetensors.index.json names another file for 3 of",
        "model.embed_tokens.weight is in model-00001-of-00002.safetensors, and the index says",
    ),
    "an index that points outside": (
        outside,
        "is not an index of weights",
        "outside the folder: ../model.safetensors",
    ),
    "pickled": (
        only("pytorch_model.bin"),
        "has no weights in safetensors",
        "llama-recipes-local convert {folder} --out DIR",
    ),
    "Meta's layout": (
        meta_layout,
        "is in Meta's own layout",
        "llama-recipes-local convert {folder} --out DIR",
    ),
    "an adapter inside": (
        adapter_inside,
        "an adapter lies in the model's folder {folder}",
        "mkdir adapter && mv adapter_config.json adapter_model.safetensors adapter",
    ),
    "GPTQ": (
        in_json(CONFIG, quantization_config={"quant_method": "gptq", "bits": 4}),
        QUANTIZED + "GPTQ",
        "pip install gptqmodel optimum",
    ),
    "GPTQ's names": (
        lambda folder: (
            renamed("_proj.weight", "_proj.qweight")(folder),
            in_json(CONFIG, quantization_config={"quant_method": "gptq", "bits": 4})(folder),
        ),
        QUANTIZED + "GPTQ",
        "pip install gptqmodel optimum",
    ),
    "AWQ": (
        in_json(CONFIG, quantization_config={"quant_method": "awq", "bits": 4}),
        QUANTIZED + "AWQ",
        "pip install gptqmodel",
    ),
    "compressed-tensors": (
        in_json(CONFIG, quantization_config={"quant_method": "compressed-tensors"}),
        QUANTIZED + "compressed-tensors",
        "pip install compressed-tensors",
    ),
    "another method": (
        in_json(CONFIG, quantization_config={"quant_method": "aqlm"}),
        QUANTIZED + "aqlm",
        "the methods that are read are bitsandbytes' 4 bits",
    ),
    "no method": (in_json(CONFIG, quantization_config=[4]), QUANTIZED + "[4]", "the methods that"),
    "a width in words": (
        in_json(CONFIG, hidden_size="128"),
        "config.json cannot be read",
        "hidden",
    ),
    "an infinite token": (in_json(CONFIG, eos_token_id=1e999), "config.json cannot be read", "eos"),
    "an unknown dtype": (in_json(CONFIG, dtype="zz"), "config.json cannot be read", "zz"),
    "a negative vocabulary": (in_json(CONFIG, vocab_size=-1), "config.json", "-1"),
    "positions in words": (
        in_json(CONFIG, max_position_embeddings="many"),
        "config.json cannot be read",
        "max_position_embeddings",
    ),
    "no heads": (in_json(CONFIG, num_attention_heads=0), "config.json", "zero"),
    "an unknown activation": (
        in_json(CONFIG, hidden_act="zz"),
        "config.json describes a model that cannot be built",
        "zz",
    ),
    "a sliding window": (
        in_json(CONFIG, sliding_window=64),
        "config.json has sliding_window 64",
        "a Llama's layers do not have it",
    ),
    "scales of other models": (
        in_json(CONFIG, logit_scale=0.5, residual_multiplier=0.22, use_qk_norm=True),
        "config.json has logit_scale 0.5, residual_multiplier 0.22, use_qk_norm True",
        "remove it from config.json if the model was trained without it",
    ),
    "an unknown rotary scaling": (
        in_json(CONFIG, rope_scaling={"rope_type": "zz", "factor": 2.0}),
        "config.json",
        "zz",
    ),
    "rotary scaling without a type": (
        in_json(CONFIG, rope_parameters={"rope_theta": 1e4, "factor": 2.0}),
        "config.json cannot be read",
        "the factor 2.0, and no rope_type",
    ),
    "rotary scaling by less than 1": (
        in_json(CONFIG, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 0.5}),
        "config.json cannot be read",
        "the factor 0.5, and must have 1 or more",
    ),
    "rotary settings under two names": (
        in_json(
            CONFIG,
            rope_scaling={"type": "linear", "factor": 2.0},
            rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        ),
        "config.json cannot be read",
        "it has rope_type 'linear' in rope_scaling and 'default' in rope_parameters",
    ),
    "two rotary types": (
        in_json(
            CONFIG,
            rope_parameters={"type": "dynamic", "rope_type": "linear", "factor": 2.0},
        ),
        "config.json cannot be read",
        "type 'dynamic' and 'linear' for the rotary embedding",
    ),
    "two rotary bases": (
        in_json(CONFIG, rope_theta=5e5, rope_parameters={"rope_type": "default", "rope_theta": 1}),
        "config.json cannot be read",
        "rope_theta 500000.0 and 1 for the rotary embedding",
    ),
    "dropout above 1": (in_json(CONFIG, attention_dropout=1.5), "config.json cannot be", "dropout"),
    "a deeply nested configuration": (
        with_text(CONFIG, DEEP),
        "config.json is not a JSON object",
        "recursion",
    ),
    "a generation configuration of words": (
        in_json("generation_config.json", eos_token_id="x"),
        "generation_config.json cannot be read",
        "eos_token_id",
    ),
    "an end token beyond the vocabulary": (
        in_json(CONFIG, eos_token_id=1000),
        "config.json cannot be read",
        "eos_token_id is 1000, and must be from 0 to 999 (vocab_size)",
    ),
    "a negative begin token": (
        in_json(CONFIG, bos_token_id=-1),
        "config.json cannot be read",
        "bos_token_id is -1, and must be from 0 to 999",
    ),
    "a generation that ends at no token of the model": (
        in_json("generation_config.json", eos_token_id=[1, 128009]),
        "generation_config.json cannot be read",
        "eos_token_id is [1, 128009], and must be from 0 to 999",
    ),
    "a tokenizer without its end token": (
        in_json("tokenizer_config.json", eos_token="<|eot_id|>"),
        "the tokenizer in {folder} cannot be loaded",
        "its vocabulary lacks the eos_token '<|eot_id|>', which tokenizer_config.json names",
    ),
    "NaN in the middle of a matrix": (spoiled(UP, float("nan")), RIGHT, f"infinite numbers: {UP}"),
    "infinity in a head": (
        spoiled("lm_head.weight", float("inf")),
        RIGHT,
        "NaN or infinite numbers: lm_head.weight",
    ),
    "a matrix of zeros": (zero(UP), RIGHT, f"zero throughout: {UP}"),
    "an embedding of zeros": (zero("embed_tokens"), RIGHT, "throughout: model.embed_tokens.weight"),
    "a normalisation of zeros": (zero("model.norm"), RIGHT, "zero throughout: model.norm.weight"),
    "one output of zeros": (
        zero("layers.0.mlp.down_proj"),
        RIGHT,
        "zero throughout: model.layers.0.mlp.down_proj.weight",
    ),
    "everything zero": (zero(""), RIGHT, "zero throughout: lm_head.weight, model.embed"),
    "a generation configuration that is a list": (
        with_text("generation_config.json", "[]"),
        "generation_config.json cannot be read",
        "copy it again",
    ),
    "a tokenizer of another form": (
        with_text("tokenizer.json", '{"model": 1}'),
        "the tokenizer in {folder} cannot be loaded",
        "--tokenizer_name DIR",
    ),
    "a class that is a number": (
        in_json("tokenizer_config.json", tokenizer_class=1.5),
        "the tokenizer in {folder} cannot be loaded",
        "--tokenizer_name DIR",
    ),
    "a token that is a list": (
        in_json("tokenizer_config.json", bos_token=["a"]),
        "the tokenizer in {folder} cannot be loaded",
        "--tokenizer_name DIR",
    ),
    "a length in words": (
        in_json("tokenizer_config.json", model_max_length="x"),
        "the tokenizer in {folder} cannot be loaded",
        "model_max_length",
    ),
    "a tokenizer with code": (
        in_json(
            "tokenizer_config.json", tokenizer_class="X", auto_map={"AutoTokenizer": ["x.X", None]}
        ),
        "the tokenizer in {folder} cannot be loaded",
        "it needs Python code of its own, which is never run",
    ),
}

IN_TRAINING_ONLY = {name for name in FAULTS if "tokenizer" in name or "generation" in name} | {
    "a class that is a number",
    "a token that is a list",
    "a length in words",
}


@pytest.fixture(autouse=True)
def _without_packages_for_quantised_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compressed_tensors", "gptqmodel", "optimum"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def files_in(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_size for path in folder.rglob("*")}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_folder_is_one_report_and_nothing_is_written(
    fault: str,
    folder: Path,
    tiny_run: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    spoil, what, then = FAULTS[fault]
    spoil(folder)
    monkeypatch.chdir(folder.parent)
    before = files_in(folder.parent)
    flags = {"model_name": str(folder), "context_length": 256, "use_peft": True}
    with pytest.raises(SystemExit) as ended:
        main(**tiny_run | flags)
    assert ended.value.code == UsageError.EXIT_CODE
    report = capfd.readouterr().err
    assert "1 problem found" in report, report
    first, *rest = report[report.index("1 problem found, nothing was started:") :].splitlines()[1:]
    assert what.format(folder=folder) in first
    assert then.format(folder=folder) in "\n".join([first, *rest])
    assert [line[:8] for line in rest] == ["   why: ", "   fix: "]
    assert files_in(folder.parent) == before


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - IN_TRAINING_ONLY))
def test_generate_and_evaluate_refuse_what_training_refuses(fault: str, folder: Path) -> None:
    FAULTS[fault][0](folder)
    with pytest.raises(UsageError):
        find_source(model=folder)


@pytest.mark.parametrize(
    "spoil",
    [
        with_tensor("model.layers.0.self_attn.rotary_emb.inv_freq", torch.zeros(8)),
        weights(lambda each: each.update({UP: each[UP].double()})),
        lambda folder: (
            untied(folder),
            change(folder, lambda each: each.update({"lm_head.weight": each[EMBEDDING].clone()})),
        ),
        lambda folder: (untied(folder), without("lm_head")(folder)),
        in_json(CONFIG, pad_token_id=-1),
        lambda folder: [zero(f"layers.1.{each}")(folder) for each in WRITING],
        in_json(CONFIG, sliding_window=64, use_sliding_window=False, logit_scale=1.0),
    ],
    ids=[
        "rotary frequencies",
        "another float",
        "tied, saved twice",
        "tied, saved once",
        "the first Llamas' pad token",
        "a layer that is new",
        "what is switched off",
    ],
)
def test_what_does_no_harm_is_taken(spoil: Spoil, folder: Path) -> None:
    spoil(folder)
    assert find_source(model=folder).model == folder
    LlamaForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("fault", ["a tensor missing", "a tensor left over", "an adapter inside"])
def test_a_model_that_is_loaded_without_preflight_is_refused_as_well(
    fault: str, folder: Path
) -> None:
    FAULTS[fault][0](folder)
    with pytest.raises(UsageError):
        LlamaForCausalLM.from_pretrained(folder)

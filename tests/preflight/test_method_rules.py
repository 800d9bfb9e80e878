"""Invalid methods are refused with the reason and the nearest valid setting; valid ones pass."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.preflight.checks import METHOD, check_values, find_problems
from llama_recipes_local.run.resolution import resolve

PEFT = {"use_peft": True}
PREFIX = PEFT | {"peft_method": "prefix"}
ADAPTER = PEFT | {"peft_method": "llama_adapter", "adapter_layers": 2}
PISSA = PEFT | {"init_lora_weights": "pissa"}
CONTINUED = {"from_peft_checkpoint": "saved"}


@dataclass
class Refused:
    """Flags that cannot work, what is changed in the model's configuration, and the report."""

    flags: dict[str, Any]
    what: str
    why: str
    fix: str
    config: dict[str, Any] = field(default_factory=dict)
    saved: dict[str, Any] = field(default_factory=dict)


VISION = {"model_type": "mllama"}
REFUSED = [
    Refused(PEFT | {"r": 0}, "--r is 0", "1 or more", "give it 1"),
    Refused(PEFT | {"lora_alpha": 0}, "--lora_alpha is 0", "above 0", "give it above 0"),
    Refused(PEFT | {"lora_dropout": 1.0}, "--lora_dropout is 1.0", "less than 1", "less than 1"),
    Refused(PEFT | {"loraplus_lr_ratio": -1}, "--loraplus_lr_ratio is -1", "0 or", "give it"),
    Refused({"loraplus_lr_ratio": 4}, "--loraplus_lr_ratio 4", "B matrices", "--use_peft"),
    Refused(ADAPTER | {"loraplus_lr_ratio": 4}, "--loraplus_lr_ratio 4", "B", "--peft_method lora"),
    Refused(PEFT | {"bias": "some"}, "unknown --bias some", "none, all, lora_only", "--bias none"),
    Refused(PEFT | {"inference_mode": True}, "--inference_mode", "nothing would", "leave --inf"),
    Refused(PEFT | {"task_type": "CLS"}, "unknown --task_type CLS", "CAUSAL_LM", "CAUSAL_LM"),
    Refused(
        PEFT | {"target_modules": "q_proj,k_projj"},
        "--target_modules k_projj",
        "the model has down_proj, embed_tokens, gate_proj, k_proj, lm_head, o_proj, q_proj",
        "did you mean --target_modules k_proj?",
    ),
    Refused(
        PEFT | {"target_modules": "norm"}, "--target_modules norm", "has down_proj", "all-linear"
    ),
    Refused(
        PEFT | {"init_lora_weights": "olora"},
        "--init_lora_weights olora",
        "pissa_niter_N",
        "--init_lora_weights pissa_niter_16",
    ),
    Refused(
        PEFT | {"init_lora_weights": "pissa_niter_0"},
        "--init_lora_weights pissa_niter_0",
        "pissa_niter_N",
        "leave it out",
    ),
    Refused(
        PISSA | {"quantization": "4bit"},
        "--init_lora_weights pissa with --quantization 4bit",
        "PiSSA initialises the adapter from the weights",
        "leave one of them out",
    ),
    Refused(
        PISSA | {"target_modules": "q_proj,embed_tokens"},
        "--init_lora_weights pissa with --target_modules embed_tokens",
        "linear layers",
        "leave embed_tokens out",
    ),
    Refused(
        PEFT | {"target_modules": "q_proj,lm_head", "use_fast_kernels": True},
        "--target_modules lm_head with --use_fast_kernels",
        "the fused loss uses the head's own weight",
        "leave it out, or use --use_fast_kernels False",
    ),
    Refused(ADAPTER | {"adapter_len": 0}, "--adapter_len is 0", "1 or more", "give it 1 or more"),
    Refused(ADAPTER | {"adapter_layers": 0}, "--adapter_layers is 0", "must be", "give it 1"),
    Refused(
        ADAPTER | {"adapter_layers": 3},
        "--adapter_layers 3",
        "has 2 layers (num_hidden_layers)",
        "use --adapter_layers 2 or less",
    ),
    Refused(
        PREFIX | {"num_virtual_tokens": 0}, "--num_virtual_tokens is 0", "must be", "1 or more"
    ),
    Refused(
        PREFIX | {"attn_implementation": "sdpa"},
        "--attn_implementation sdpa with --peft_method prefix",
        "Prefix tuning is computed by the attention 'documents' only",
        "--attn_implementation documents",
    ),
    Refused(
        PREFIX | {"context_length": 483},
        "--context_length 483 with --num_virtual_tokens 30",
        "has 512 positions",
        "use --context_length 482 or less",
    ),
    Refused(
        PREFIX | {"r": 8},
        "--r with --peft_method prefix",
        "it would be ignored",
        "leave it out, or use --use_peft --peft_method lora",
    ),
    Refused(
        PEFT | {"prefix_config.num_virtual_tokens": 8},
        "--prefix_config.num_virtual_tokens with --peft_method lora",
        "it would be ignored",
        "--peft_method prefix",
    ),
    Refused({"lora_alpha": 8}, "--lora_alpha with no --use_peft", "ignored", "--peft_method lora"),
    Refused(
        PEFT | {"train_only": "lm_head"},
        "--train_only lm_head with --use_peft",
        "only the adapter would be trained",
        "leave one",
    ),
    Refused(PEFT | {"top_layers": 1}, "--top_layers 1 with --use_peft", "only the ad", "leave one"),
    Refused(PEFT | {"freeze_layers": True}, "--freeze_layers with --use_peft", "only", "leave one"),
    Refused(
        {"freeze_layers": True, "train_only": "last:1"},
        "--freeze_layers with --train_only last:1",
        "each selects what is trained",
        "leave one",
    ),
    Refused(
        {"top_layers": 1, "train_only": "last:1"},
        "--train_only last:1 with --top_layers 1",
        "each selects what is trained",
        "leave one",
    ),
    Refused(
        {"freeze_layers": True, "num_freeze_layers": 3},
        "--num_freeze_layers 3",
        "the model has 2 layers",
        "from 1 to 2",
    ),
    Refused(
        {"train_only": "lm_head"},
        "--train_only lm_head",
        "this model's head is its embedding (tie_word_embeddings)",
        "use --top_layers 1, or --train_only last:1",
        config={"tie_word_embeddings": True},
    ),
    Refused({"train_only": "head"}, "--train_only head", "last:N", "use --train_only lm_head"),
    Refused({"train_only": "last:0"}, "--train_only last:0", "has 2 layers", "last:1 to last:2"),
    Refused({"train_only": "last:99"}, "--train_only last:99", "has 2 layers", "last:1 to last:2"),
    Refused({"top_layers": -1}, "--top_layers is -1", "from 0 to 1000", "give it from 0"),
    Refused(
        {"top_layers": 1},
        "--top_layers 1",
        "has 2 of these layers already",
        "use --top_layers 2, which continues to train them",
        config={"top_layers": 2},
    ),
    Refused(
        {"top_layers": 1, "enable_fsdp": True},
        "layers on top with --checkpoint_type SHARDED_STATE_DICT",
        "no config.json to record them",
        "add --checkpoint_type FULL_STATE_DICT",
    ),
    Refused(
        {"enable_fsdp": True},
        "layers on top with --checkpoint_type SHARDED_STATE_DICT",
        "no config.json to record them",
        "add --checkpoint_type FULL_STATE_DICT",
        config={"top_layers": 2},
    ),
    Refused({"top_layers": 1}, "--top_layers 1 with a vision", "text", "method lora", VISION),
    Refused({"train_only": "last:1"}, "--train_only last:1 with a v", "text", "lora", VISION),
    Refused({"freeze_layers": True}, "--freeze_layers with a vision", "text", "lora", VISION),
    Refused(PREFIX, "--peft_method prefix with a vision model", "text", "lora", VISION),
    Refused(ADAPTER, "--peft_method llama_adapter with a vision", "text", "lora", VISION),
    Refused(
        PEFT | CONTINUED | {"r": 16},
        "--from_peft_checkpoint saved with --r 16",
        "the adapter there has r 8",
        "leave --r out",
        saved={"peft_type": "LORA", "r": 8},
    ),
    Refused(
        PEFT | CONTINUED | {"use_fast_kernels": True},
        "an adapter on lm_head, as in {work}/saved/adapter_config.json, with --use_fast_kernels",
        "the fused loss uses the head's own weight",
        "use --use_fast_kernels False",
        saved={"peft_type": "LORA", "target_modules": ["q_proj", "lm_head"]},
    ),
    Refused(
        PEFT | CONTINUED,
        "--from_peft_checkpoint saved with --peft_method lora",
        "the adapter there is prefix",
        "use --peft_method prefix",
        saved={"peft_type": "PREFIX_TUNING"},
    ),
    Refused(
        PREFIX | CONTINUED | {"attn_implementation": "sdpa"},
        "--attn_implementation sdpa with --from_peft_checkpoint saved",
        "Prefix tuning is computed by the attention 'documents' only",
        "use --attn_implementation documents",
        saved={"peft_type": "PREFIX_TUNING"},
    ),
    Refused(
        PEFT | CONTINUED,
        "--from_peft_checkpoint saved with --peft_method lora",
        "the adapter there is IA3",
        "name an adapter that is lora, llama_adapter, prefix",
        saved={"peft_type": "IA3"},
    ),
    Refused(
        PEFT | CONTINUED,
        "{work}/saved/adapter_config.json is not an adapter's configuration",
        "peft_type",
        "copy it again",
        saved={"r": 8},
    ),
]
ACCEPTED: list[dict[str, Any]] = [
    {},
    PEFT | {"target_modules": "all-linear", "bias": "all", "use_dora": True, "use_rslora": True},
    PEFT | {"target_modules": "q_proj,self_attn.k_proj,lm_head,embed_tokens", "lora_dropout": 0},
    PEFT | {"init_lora_weights": "gaussian", "loraplus_lr_ratio": 16},
    PEFT | {"init_lora_weights": False, "quantization": "4bit"},
    PISSA,
    PEFT | {"init_lora_weights": "pissa_niter_16"},
    ADAPTER,
    PREFIX | {"context_length": 482, "attn_implementation": "documents"},
    PREFIX | {"context_length": 512, "batching_strategy": "padding"},
    {"train_only": "lm_head"},
    {"train_only": "last:2"},
    {"top_layers": 3},
    {"top_layers": 3, "enable_fsdp": True, "checkpoint_type": "FULL_STATE_DICT"},
    {"top_layers": 3, "enable_fsdp": True, "save_model": False},
    {"freeze_layers": True, "num_freeze_layers": 2},
    PEFT | CONTINUED | {"r": 8, "target_modules": "v_proj,q_proj", "loraplus_lr_ratio": 4},
]


@pytest.fixture
def work(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a model of its own and an adapter's configuration."""
    shutil.copytree(tiny_model, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "saved", {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj", "v_proj"]})
    return tmp_path


def save(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))


def problems_of(flags: dict[str, Any]) -> list[Any]:
    run = resolve({"context_length": 128, "model_name": "model"} | flags)
    return find_problems(run, (check_values, *METHOD))


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.what)
def test_invalid_methods_are_refused(case: Refused, work: Path) -> None:
    path = work / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | case.config))
    if case.saved:
        save(work / "saved", case.saved)
    (problem,) = problems_of(case.flags)
    assert problem.what.startswith(case.what.replace("{work}", str(work)))
    assert case.why in problem.why
    assert case.fix in problem.fix


@pytest.mark.parametrize("flags", ACCEPTED, ids=str)
@pytest.mark.usefixtures("work")
def test_valid_methods_have_no_problem(flags: dict[str, Any]) -> None:
    assert problems_of(flags) == []


@pytest.mark.parametrize("spoiled", ["", "{", "[1]"])
def test_a_model_that_cannot_be_read_is_reported_elsewhere(spoiled: str, work: Path) -> None:
    (work / "model/config.json").write_text(spoiled)
    (work / "model/model.safetensors").write_bytes(b"none")
    assert problems_of(PEFT | {"target_modules": "x_proj"}) == []


@pytest.mark.parametrize(
    ("old", "new"), [("q_proj", "query"), ("q_proj.weight", "q_proj.weight_packed")]
)
def test_targets_are_layers_of_the_model_whatever_its_files_hold(
    old: str, new: str, work: Path
) -> None:
    """A file with a renamed tensor is reported by itself, and packed weights have other names."""
    from safetensors.torch import load_file, save_file

    path = work / "model/model.safetensors"
    save_file({name.replace(old, new): each for name, each in load_file(path).items()}, path)
    targets = "q_proj,layers.1.self_attn.q_proj,lm_head"
    assert problems_of(PEFT | {"target_modules": targets}) == []
    (problem,) = problems_of(PEFT | {"target_modules": "layers.2.self_attn.q_proj"})
    assert problem.what == "--target_modules layers.2.self_attn.q_proj"


def test_any_number_of_layers_can_be_asked_about(work: Path) -> None:
    path = work / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 10**12}))
    assert problems_of(PEFT | {"target_modules": "q_proj"}) == []


def test_a_tied_head_gets_lora_though_the_files_do_not_have_it(work: Path) -> None:
    import transformers

    config = transformers.AutoConfig.from_pretrained(work / "model", tie_word_embeddings=True)
    transformers.LlamaForCausalLM(config).save_pretrained(work / "model")
    assert problems_of(PEFT | {"target_modules": "q_proj,lm_head"}) == []
    (problem,) = problems_of(PEFT | {"target_modules": "q_proj,head"})
    assert "has down_proj, embed_tokens, gate_proj, k_proj, lm_head" in problem.why

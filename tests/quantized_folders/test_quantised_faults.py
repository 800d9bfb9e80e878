"""Faults of folders with quantised weights, put in on purpose: the certificate refuses each.

GPTQ's folders are rounded and packed here, so that gptqmodel is not needed.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_families import build
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, LlamaForCausalLM

from llama_recipes_local.certificates.certificate import certify
from llama_recipes_local.certificates.check_names import CHECKS
from llama_recipes_local.certificates.held_out import shipped_rows
from llama_recipes_local.errors import UsageError, refuse
from llama_recipes_local.export_formats import FORMATS, PlannedExport
from llama_recipes_local.model_folders.exported_model import ExportedModel
from llama_recipes_local.model_folders.tensors import StoredTensors
from llama_recipes_local.model_folders.weight_files import weight_files
from llama_recipes_local.quantized_folders.gptq_format import GptqExport, configuration

pytestmark = pytest.mark.slow
FORMATS_HERE = ("gptq-4bit", "gptq-8bit", "fp8-channel", "fp8-tensor", "fp8-block")
GROUP = 128
Q, K = (f"model.layers.1.self_attn.{each}_proj" for each in "qk")
UP, OTHER = "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    folder = build("Llama 3.1", tmp_path_factory.mktemp("faults") / "model")
    config = AutoConfig.from_pretrained(folder)
    config.hidden_size, config.intermediate_size, config.head_dim = 256, 384, 128
    config.num_attention_heads = config.num_key_value_heads = 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(str(folder))
    tensors = StoredTensors(weight_files(folder))
    return ExportedModel(
        source=folder,
        tokenizer=folder,
        weights={name: each.to("meta") for name, each in tensors.items()},
        weight=tensors.__getitem__,
        config_changes={},
    )


def packed(weight: torch.Tensor, bits: int) -> Tensors:
    """Return a weight rounded to the nearest, in GPTQ's first format."""
    columns = weight.float().T.reshape(-1, GROUP, len(weight))
    scales = (2 * columns.abs().amax(1) / (2**bits - 1)).half()
    middle = 2 ** (bits - 1)
    numbers = (columns / scales.float()[:, None] + middle).round().clamp(0, 2**bits - 1)
    each = 32 // bits
    shifts = torch.arange(each) * bits
    words = numbers.flatten(0, 1).long().reshape(-1, each, len(weight)) << shifts[:, None]
    zeros = torch.full((len(scales), len(weight) // each, each), middle - 1) << shifts
    return {
        "qweight": words.sum(1).to(torch.int32),
        "qzeros": zeros.sum(-1).to(torch.int32),
        "scales": scales,
        "g_idx": torch.arange(weight.shape[1], dtype=torch.int32) // GROUP,
    }


def write_rounded(self: GptqExport, folder: Path) -> None:
    tensors = Tensors()
    for name in self.model.weights:
        weight = self.model.weight(name)
        if name.endswith("_proj.weight"):
            parts = packed(weight, self.bits)
            tensors |= {name.removesuffix("weight") + part: each for part, each in parts.items()}
        else:
            tensors[name] = weight
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for path in self.model.source.glob("*.json"):
        shutil.copy(path, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = configuration(self.bits, GROUP) | {"meta": {"by": "this test"}}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def planned(
    request: pytest.FixtureRequest, model: ExportedModel, tmp_path_factory: pytest.TempPathFactory
) -> PlannedExport:
    """An export whose folder is there; ``out`` is that folder."""
    out = tmp_path_factory.mktemp("planned") / request.param
    out.mkdir()
    made = FORMATS[request.param](model)
    write_rounded(made, out) if isinstance(made, GptqExport) else made.write(out)
    return PlannedExport(model, out, made)


def certified(planned: PlannedExport, folder: Path) -> Any:
    read = planned.export.read_back(folder)
    assert read is not None
    held_out = shipped_rows(planned.model, read.original.tokenizer)
    few = replace(held_out, rows=held_out.rows[:1], prompts=())
    return certify(folder, read, few, ["outputs"])


@pytest.mark.parametrize("planned", FORMATS_HERE, indirect=True)
def test_a_folder_that_is_right_is_certified(planned: PlannedExport, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(planned.out, tmp_path / "out"))
    assert certified(planned, folder).findings() | {"outputs": []} == {name: [] for name in CHECKS}


def in_tensors(change: Callable[[Tensors], object]) -> Callable[[Path], None]:
    def put_in(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        tensors = {name: each.contiguous() for name, each in tensors.items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return put_in


def in_json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def put_in(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return put_in


def in_settings(**changes: object) -> Callable[[Path], None]:
    return in_json("config.json", lambda it: it["quantization_config"].update(changes))


def scaled(tensors: Tensors, name: str, factor: float) -> None:
    tensors[name] = (tensors[name].float() * factor).to(tensors[name].dtype)


def exchanged(tensors: Tensors, first: str, second: str) -> None:
    """Exchange all parts of two layers' weights."""
    for name in [each for each in tensors if each.startswith(f"{first}.")]:
        other = second + name.removeprefix(first)
        tensors[name], tensors[other] = tensors[other].clone(), tensors[name].clone()


def half_turned(rows: torch.Tensor) -> torch.Tensor:
    """Return rows of two heads in the order that llama.cpp has them in."""
    return rows.unflatten(0, (2, 2, -1)).transpose(1, 2).flatten(0, 2)


def reordered(tensors: Tensors, name: str, order: list[int]) -> None:
    """Put the bytes of a tensor into another order."""
    numbers = tensors[name].view(torch.uint8).unflatten(-1, (-1, len(order)))
    tensors[name] = numbers[..., order].flatten(-2).view(tensors[name].dtype)


def swapped_merges(content: dict[str, Any]) -> None:
    merges = content["model"]["merges"]
    merges[3], merges[4] = merges[4], merges[3]


ANY = {
    "epsilon": (in_json("config.json", lambda it: it.update(rms_norm_eps=1e-6)), "settings"),
    "rotary base": (
        in_json("config.json", lambda it: it["rope_parameters"].update(rope_theta=20000.0)),
        "settings",
    ),
    "rotary scaling": (
        in_json("config.json", lambda it: it["rope_parameters"].update(factor=4.0)),
        "settings",
    ),
    "merges": (in_json("tokenizer.json", swapped_merges), "tokens"),
    "a lost end token": (
        in_json("generation_config.json", lambda it: it["eos_token_id"].pop()),
        "ends",
    ),
    "not said to be quantised": (
        in_json("config.json", lambda it: it.pop("quantization_config")),
        "settings",
    ),
    "the dtype to compute in": (
        in_json("config.json", lambda it: it.update(dtype="float16")),
        "settings",
    ),
    "how answers are drawn": (
        in_json("generation_config.json", lambda it: it.update(repetition_penalty=1.3)),
        "settings",
    ),
    "no begin token": (
        in_json("tokenizer_config.json", lambda it: it.update(add_bos_token=False)),
        "settings",
    ),
    "an added token's spaces": (
        in_json("tokenizer.json", lambda it: it["added_tokens"][0].update(lstrip=True)),
        "settings",
    ),
    "a norm in another dtype": (
        in_tensors(lambda it: it.update({"model.norm.weight": it["model.norm.weight"].double()})),
        "settings",
    ),
    **{
        f"{name} beside": (lambda folder, name=name: (folder / name).write_text("{}"), "settings")
        for name in (
            *("adapter_config.json", "model.safetensors.index.json", "pytorch_model.bin"),
            *("modeling_llama.py", "chat_template.json", "consolidated.safetensors"),
        )
    },
    "two layers": (in_tensors(lambda it: exchanged(it, UP, OTHER)), "weights"),
    "queries and keys": (in_tensors(lambda it: exchanged(it, Q, K)), "weights"),
    "another layer's norm": (
        in_tensors(lambda it: it.update({"model.norm.weight": it["model.norm.weight"] * 1.01})),
        "weights",
    ),
    "a tensor more": (
        in_tensors(lambda it: it.update({f"{UP}.bias": torch.ones(384)})),
        "settings",
    ),
}
GPTQ = {
    "one row": (in_tensors(lambda it: it[f"{UP}.qweight"][:, 3].fill_(0x70707070)), "weights"),
    "rows of queries": (
        in_tensors(
            lambda it: it.update(
                {
                    f"{Q}.{part}": half_turned(it[f"{Q}.{part}"].T).T
                    for part in ("qweight", "scales")
                }
            )
        ),
        "weights",
    ),
    "one layer's scale": (in_tensors(lambda it: scaled(it, f"{UP}.scales", 1.03)), "weights"),
    "NaN": (in_tensors(lambda it: it[f"{UP}.scales"][0, :1].fill_(torch.nan)), "weights"),
    "groups of columns": (
        in_tensors(lambda it: it[f"{UP}.g_idx"].copy_(it[f"{UP}.g_idx"].flip(0))),
        "weights",
    ),
    "a zero point": (in_tensors(lambda it: it[f"{UP}.qzeros"][0, :1].add_(1)), "weights"),
    "all zero points": (in_tensors(lambda it: it[f"{UP}.qzeros"].add_(0x01010101)), "weights"),
    "the order of bytes": (
        in_tensors(lambda it: reordered(it, f"{UP}.qweight", [1, 0, 3, 2])),
        "weights",
    ),
    "turned": (
        in_tensors(lambda it: it.update({f"{Q}.qweight": it[f"{Q}.qweight"].flip(1)})),
        "weights",
    ),
    "a lost tensor": (in_tensors(lambda it: it.pop(f"{UP}.scales")), "weights"),
    "a whole weight": (
        in_tensors(lambda it: it.update({f"{UP}.weight": torch.zeros(384, 256)})),
        "settings",
    ),
    "bits": (in_settings(bits=2), "settings"),
    "desc_act": (in_settings(desc_act=True), "settings"),
    "sym": (in_settings(sym=False), "settings"),
    "group_size": (in_settings(group_size=32), "settings"),
    "format": (in_settings(format="gptq_v2"), "settings"),
    "a quantised head": (in_settings(lm_head=True), "settings"),
}
FP8 = {
    "rows of queries": (
        in_tensors(
            lambda it: it.update(
                {
                    f"{Q}.weight": half_turned(it[f"{Q}.weight"].view(torch.uint8)).view(
                        it[f"{Q}.weight"].dtype
                    )
                }
            )
        ),
        "weights",
    ),
    "one layer's scale": (
        in_tensors(lambda it: scaled(it, f"{UP}.weight_scale", 1.015)),
        "weights",
    ),
    "the bytes of a float": (
        in_tensors(lambda it: reordered(it, f"{UP}.weight", [1, 0])),
        "weights",
    ),
    "another dtype": (
        in_tensors(
            lambda it: it.update(
                {f"{UP}.weight": it[f"{UP}.weight"].view(torch.uint8).view(torch.float8_e5m2)}
            )
        ),
        "settings",
    ),
    "a lost scale": (in_tensors(lambda it: it.pop(f"{UP}.weight_scale")), "weights"),
    "a turned scale": (
        in_tensors(
            lambda it: it.update({f"{UP}.weight_scale": it[f"{UP}.weight_scale"].flatten()[:1]})
        ),
        "settings",
    ),
    "a quantised head": (in_settings(ignore=[]), "settings"),
    "strategy": (
        in_json(
            "config.json",
            lambda it: it["quantization_config"]["config_groups"]["group_0"]["weights"].update(
                strategy="tensor"
            ),
        ),
        "settings",
    ),
    "status": (in_settings(quantization_status="frozen"), "settings"),
}


CASES = [
    *(("gptq-8bit", *each) for each in (ANY | GPTQ).items()),
    *(("gptq-4bit", *each) for each in GPTQ.items()),
    *(("fp8-channel", *each) for each in (ANY | FP8).items()),
    *(("fp8-block", name, FP8[name]) for name in ("one layer's scale", "a turned scale")),
]


@pytest.mark.parametrize(
    ("planned", "fault"),
    [pytest.param(kind, fault, id=f"{kind}: {name}") for kind, name, fault in CASES],
    indirect=["planned"],
)
def test_a_fault_is_refused(
    planned: PlannedExport, fault: tuple[Callable[[Path], None], str], tmp_path: Path
) -> None:
    put_in, check = fault
    folder = Path(shutil.copytree(planned.out, tmp_path / "out"))
    put_in(folder)
    with pytest.raises(UsageError) as refused:
        refuse(certified(planned, folder).problems())
    named = {each.fix.rpartition("--accept ")[2] for each in refused.value.problems}
    assert check in named <= {check, "settings"}

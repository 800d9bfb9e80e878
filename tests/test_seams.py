"""One test a patch: the seam is where the patch says, and what comes through it is ours."""

import ast
import csv
import importlib
import importlib.util
import inspect
import operator
import shutil
import sys
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from llama_recipes_local import _upstream, configs, finetuning
from llama_recipes_local.run import Run
from llama_recipes_local.vendoring.checkout import Checkout, this_checkout
from llama_recipes_local.vendoring.fetch import fetch_wheel
from llama_recipes_local.vendoring.lock import read_lock
from llama_recipes_local.vendoring.seams import read_seams


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The locked wheel; nothing is written to the checkout."""
    project = this_checkout()
    fetching = Checkout(tmp_path_factory.mktemp("fetched"))
    shutil.copytree(project.patches, fetching.patches)
    fetching.package.mkdir()
    if project.wheels.is_dir():
        shutil.copytree(project.wheels, fetching.wheels)
    return zipfile.ZipFile(BytesIO(fetch_wheel(fetching, read_lock(fetching.lock))))


def function_source(source: bytes, name: str) -> bytes:
    """The bytes of a module's function, from its ``def`` to its last line."""
    (node,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    return b"".join(source.splitlines(keepends=True)[node.lineno - 1 : node.end_lineno])


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_main_in_place_is_the_wheels_byte_for_byte(wheel: zipfile.ZipFile) -> None:
    theirs = function_source(wheel.read("llama_recipes/finetuning.py"), "main")
    ours = function_source((_upstream.VENDORED_DIR / "finetuning.py").read_bytes(), "main")
    assert theirs.startswith(b"def main(**kwargs):\n") and theirs.count(b"\n") > 200
    assert ours == theirs


COLLABORATORS = {
    "FSDP": "parallel.FullyShardedDataParallel",
    "FSDP_CONFIG": "configs.fsdp_config",
    "QUANTIZATION_CONFIG": "configs.quantization_config",
    "TRAIN_CONFIG": "configs.train_config",
    "AnyPrecisionAdamW": "policies.AnyPrecisionAdamW",
    "AutoConfig": "models.AutoConfig",
    "AutoProcessor": "models.AutoProcessor",
    "AutoTokenizer": "models.AutoTokenizer",
    "BitsAndBytesConfig": "models.BitsAndBytesConfig",
    "ConcatDataset": "data.concatenator.ConcatDataset",
    "LlamaForCausalLM": "models.LlamaForCausalLM",
    "MllamaForConditionalGeneration": "models.MllamaForConditionalGeneration",
    "PeftModel": "adapters.PeftModel",
    "ShardingStrategy": "parallel.ShardingStrategy",
    "StepLR": "optimization.StepLR",
    "apply_fsdp_checkpointing": "policies.apply_fsdp_checkpointing",
    "check_fsdp_config": "utils.config_utils.check_fsdp_config",
    "clear_gpu_cache": "utils.train_utils.clear_gpu_cache",
    "freeze_transformer_layers": "utils.train_utils.freeze_transformer_layers",
    "fsdp_auto_wrap_policy": "utils.fsdp_auto_wrap_policy",
    "generate_dataset_config": "utils.config_utils.generate_dataset_config",
    "generate_peft_config": "utils.config_utils.generate_peft_config",
    "get_custom_data_collator": "utils.dataset_utils.get_custom_data_collator",
    "get_dataloader_kwargs": "utils.config_utils.get_dataloader_kwargs",
    "get_peft_model": "adapters.get_peft_model",
    "get_policies": "utils.train_utils.get_policies",
    "get_preprocessed_dataset": "utils.dataset_utils.get_preprocessed_dataset",
    "hsdp_device_mesh": "utils.fsdp_utils.hsdp_device_mesh",
    "print": "run.log.print_detail",
    "print_model_size": "utils.train_utils.print_model_size",
    "setup": "utils.train_utils.setup",
    "setup_environ_flags": "utils.train_utils.setup_environ_flags",
    "train": "utils.train_utils.train",
    "update_config": "utils.config_utils.update_config",
}
# ours leaves these as they are: plain data, or nothing that local folders change
UPSTREAMS_OWN = {"FSDP_CONFIG", "QUANTIZATION_CONFIG", "AnyPrecisionAdamW"}
LIBRARIES_OWN = {"BitsAndBytesConfig", "ShardingStrategy", "StepLR"}


def imports_outside_functions(module: Any) -> list[str]:
    """The modules that a module imports from at its top level."""
    return [
        node.module
        for node in ast.parse(Path(module.__file__).read_bytes()).body
        if isinstance(node, ast.ImportFrom) and node.module
    ]


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_main_takes_its_collaborators_from_this_package() -> None:
    theirs = _upstream.load("finetuning")
    assert theirs.optim is importlib.import_module("llama_recipes_local.optimization")
    for name, place in COLLABORATORS.items():
        module, _, attribute = place.rpartition(".")
        ours = getattr(importlib.import_module(f"llama_recipes_local.{module}"), attribute)
        assert getattr(theirs, name) is ours, name
        if name not in UPSTREAMS_OWN | LIBRARIES_OWN:
            assert ours.__module__.startswith("llama_recipes_local."), name
            assert "_vendor" not in ours.__module__, name
    assert not [name for name in imports_outside_functions(theirs) if "_vendor" in name]


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_the_list_of_mains_collaborators_is_whole() -> None:
    source = (_upstream.VENDORED_DIR / "finetuning.py").read_bytes()
    imported = {
        alias.asname or alias.name
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("llama_recipes_local")
        for alias in node.names
    }
    assert imported == set(COLLABORATORS)


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_the_seams_are_where_the_table_says() -> None:
    theirs = _upstream.load("finetuning")
    seams = read_seams(this_checkout().package)
    names = {seam.name.partition(".")[0] for seam in seams}
    assert names == {*COLLABORATORS, "WANDB_CONFIG", "optim"}
    for seam in seams:
        place = seam.definition
        module = importlib.import_module(place.module)
        defined = operator.attrgetter(place.name)(module)
        if seam.name != "WANDB_CONFIG":  # which is imported inside a function
            # where from_pretrained is inherited, the class is named
            inherited = seam.name == f"{place.name}.from_pretrained"
            used = operator.attrgetter(seam.name.partition(".")[0] if inherited else seam.name)
            assert used(theirs) == defined, seam.name
        if place.path:
            assert str(inspect.getsourcefile(defined)).endswith(place.path)
            assert inspect.getsourcelines(defined)[1] in (place.line, place.line - 1), seam.name


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_main_uses_every_collaborator_that_is_swapped() -> None:
    unused = {seam.name for seam in read_seams(this_checkout().package) if not seam.lines}
    assert unused == {"BitsAndBytesConfig"}  # main asks quantization_config for one


def test_wandb_is_told_by_our_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = MagicMock()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    _upstream.load("finetuning").setup_wandb({}, {}, notes="a note")
    told = wandb.init.call_args.kwargs
    assert told["mode"] == "offline" and told["notes"] == "a note"


def test_mains_wandb_run_has_the_runs_id(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = MagicMock()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    run = Run({"notes": "a note"}, wandb=configs.wandb_config(id="before", resume="allow"))
    _upstream.load("finetuning").setup_wandb({}, {}, **finetuning._flags_for_main(run))
    told = wandb.init.call_args.kwargs
    assert told["id"] == "before" and told["resume"] == "allow" and told["notes"] == "a note"


def modules_of(wheel: zipfile.ZipFile) -> Iterator[str]:
    """Every module of the wheel by its name below ``llama_recipes``."""
    for path in wheel.namelist():
        package, _, name = path.partition("/")
        if package == "llama_recipes" and name.endswith(".py"):
            yield name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_every_public_module_imports(wheel: zipfile.ZipFile) -> None:
    names = sorted(modules_of(wheel))
    assert len(names) > 25
    assert {"data.llama_guard.finetuning_data_formatter_example", "utils.train_utils"} < set(names)
    for name in names:
        if name == "inference.llm" and importlib.util.find_spec("openai") is None:
            continue
        module = importlib.import_module(f"llama_recipes_local.{name}")
        assert module.__file__ is not None, name


@pytest.mark.skipif(importlib.util.find_spec("openai") is not None, reason="openai is installed")
def test_a_missing_package_is_named() -> None:
    with pytest.raises(ImportError, match="openai"):
        importlib.import_module("llama_recipes_local.inference.llm")


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LoRA adapter for ``tiny_model`` that changes what it says."""
    import peft
    import transformers

    folder = tmp_path_factory.mktemp("adapter")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    config = peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(model, config).save_pretrained(folder)
    return folder


def test_inference_loads_from_local_folders(tiny_model: Path, adapter: Path) -> None:
    from llama_recipes_local.inference import model_utils
    from safetensors.torch import load_file

    model = model_utils.load_model(str(tiny_model), None, use_fast_kernels=True)
    saved = load_file(tiny_model / "model.safetensors")
    loaded = model.state_dict()
    assert saved and all(torch.equal(loaded[name].cpu(), saved[name]) for name in saved)
    ids = torch.arange(8, device=model.device).unsqueeze(0)
    before = model(ids).logits
    adapted = model_utils.load_peft_model(model, str(adapter))
    assert not torch.equal(adapted(ids).logits, before)
    empty = model_utils.load_llama_from_config(str(tiny_model))
    assert empty.config.hidden_size == 64 and empty.config.num_hidden_layers == 2


@pytest.mark.parametrize("load", ["load_model", "load_peft_model", "load_llama_from_config"])
def test_inference_refuses_a_name_on_the_hub(load: str) -> None:
    from llama_recipes_local.inference import model_utils

    arguments = {
        "load_model": ("meta-llama/Llama-2-7b-hf", None, False),
        "load_peft_model": (torch.nn.Identity(), "someone/adapter"),
        "load_llama_from_config": ("meta-llama/Llama-2-7b-hf",),
    }[load]
    with pytest.raises(FileNotFoundError, match="models are loaded from local folders only"):
        getattr(model_utils, load)(*arguments)


def test_converter_takes_its_loaders_from_this_package(tiny_model: Path, tmp_path: Path) -> None:
    from llama_recipes_local.inference import checkpoint_converter_fsdp_hf as converter

    from llama_recipes_local import configs, model_checkpointing, models

    assert converter.AutoTokenizer is models.AutoTokenizer
    ours = model_checkpointing.load_sharded_model_single_gpu
    assert converter.load_sharded_model_single_gpu is ours

    trained = models.LlamaForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        trained.lm_head.weight += 1
    config = configs.train_config(
        model_name=str(tiny_model), dist_checkpoint_root_folder=str(tmp_path / "checkpoints")
    )
    model_checkpointing.save_model_and_optimizer_sharded(trained, 0, config)
    model_checkpointing.save_train_params(config, configs.fsdp_config(), 0)

    converter.main(
        fsdp_checkpoint_path=str(model_checkpointing.checkpoint_folder(config)),
        consolidated_model_path=str(tmp_path / "whole"),
    )
    whole = models.LlamaForCausalLM.from_pretrained(tmp_path / "whole").state_dict()
    assert whole and all(torch.equal(whole[n], t) for n, t in trained.state_dict().items())
    vocabulary = models.AutoTokenizer.from_pretrained(tmp_path / "whole").get_vocab()
    assert vocabulary == models.AutoTokenizer.from_pretrained(tiny_model).get_vocab()


TOXIC_CHAT = [
    ("Hi there", "Hello!", "0", "[]"),
    ("How do I hurt someone?", "I cannot help.", "1", '[["violence", 0.9], ["hate", 0.1]]'),
]


@pytest.fixture
def toxic_chat(tmp_path: Path) -> Any:
    """The configuration of a data set in toxic-chat's layout with two conversations."""
    from llama_recipes_local.configs import llamaguard_toxicchat_dataset

    folder = tmp_path / "data" / "0124"
    folder.mkdir(parents=True)
    with (folder / "toxic-chat_annotation_train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        columns = "conv_id,user_input,model_output,human_annotation,toxicity,jailbreaking"
        writer.writerow([*columns.split(","), "openai_moderation"])
        for index, (user, answer, toxicity, moderation) in enumerate(TOXIC_CHAT):
            writer.writerow([f"id{index}", user, answer, "True", toxicity, "0", moderation])
    return llamaguard_toxicchat_dataset(data_path=str(tmp_path))


def test_toxicchat_reads_local_files(toxic_chat: Any, tiny_model: Path) -> None:
    from llama_recipes_local.datasets import get_llamaguard_toxicchat_dataset
    from llama_recipes_local.models import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = get_llamaguard_toxicchat_dataset(toxic_chat, tokenizer, "train")
    texts = [tokenizer.decode(row["input_ids"]) for row in rows]
    assert len(texts) == 2
    for text, (user, answer, _, _) in zip(texts, TOXIC_CHAT, strict=True):
        assert f"human: {user}\n" in text and answer not in text
    verdicts = [text.rpartition("<|end_header_id|>")[2].split() for text in texts]
    assert verdicts == [["safe"], ["unsafe", "O1"]]
    assert all(row["labels"] == row["input_ids"] for row in rows)


def test_toxicchat_as_prompts_and_labels(toxic_chat: Any) -> None:
    from llama_recipes_local.datasets.toxicchat_dataset import get_llamaguard_toxicchat_dataset

    records = get_llamaguard_toxicchat_dataset(toxic_chat, None, "train", return_jsonl=True)
    assert [record["label"] for record in records] == ["good", "bad"]
    assert [record["unsafe_content"] for record in records] == [[None], ["01"]]

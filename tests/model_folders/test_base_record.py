"""An adapter knows the weights that it was trained on, wherever they lie and in whatever form."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaForCausalLM

from llama_recipes_local import cli
from llama_recipes_local.adapters import PeftModel
from llama_recipes_local.model_checkpointing import save_peft_checkpoint
from llama_recipes_local.model_folders.base_record import compare_base
from llama_recipes_local.preflight.checks import CHECKS, find_problems
from llama_recipes_local.run import activate
from llama_recipes_local.run.record import BASE_RECORD
from llama_recipes_local.run.resolution import resolve

OTHER = "is not the one that the adapter in"
SHORT = ("--metrics", "gleu", "--max_examples", 1, "--max_new_tokens", 1)
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "lora"
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    save_peft_checkpoint(peft.get_peft_model(model, config), folder)
    return folder


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "other name"))


@pytest.fixture
def other(base: Path) -> Path:
    """A model of the same shape of which one matrix was trained further, by very little."""
    tensors = load_file(base / "model.safetensors")
    tensors[UP] = tensors[UP] * 1.001
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    return base


def saved_again(folder: Path, **options: object) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, **options)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")


FORMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "the same files": (lambda folder: None, ""),
    "other files": (saved_again, ""),
    "another dtype": (
        lambda folder: saved_again(folder, dtype=torch.bfloat16),
        "has the weights that the adapter was trained on, with tensors in BF16 instead of F32",
    ),
    "4 bits": (
        lambda folder: saved_again(
            folder, quantization_config=BitsAndBytesConfig(load_in_4bit=True)
        ),
        "has the weights that the adapter was trained on, with tensors in ",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_weights_in_another_form_are_taken_and_explained(
    form: str, adapter: Path, base: Path
) -> None:
    make, expected = FORMS[form]
    make(base)
    problems, note = compare_base(adapter, base, "--model")
    assert not problems
    assert expected in note and bool(note) == bool(expected)


def test_a_rounded_copy_of_other_weights_is_another_model(adapter: Path, base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    changed = {name: (tensor * 1.01).bfloat16() for name, tensor in tensors.items()}
    save_file(changed, base / "model.safetensors", metadata={"format": "pt"})
    (problem,), _ = compare_base(adapter, base, "--model")
    assert OTHER in problem.what
    assert "that was tiny-llama (F32)" in problem.why and "has other values" in problem.why
    assert problem.fix == (
        "name that model's folder: --model DIR; or try the adapter on this one: --allow_other_base"
    )


@pytest.fixture
def command(
    adapter: Path, other: Path, grammar_data: Path, tmp_path: Path
) -> Callable[[str], list[str]]:
    """The words of a command that uses the adapter on the other model."""

    def words(name: str) -> list[str]:
        flag = "--model" if name == "merge" else "--model_name"
        of: dict[str, list[object]] = {
            "merge": ["--out", tmp_path / "out"],
            "generate": ["--prompt", "a", "--max_new_tokens", 1],
            "evaluate": ["--dataset", "grammar_dataset", "--data_root", grammar_data, *SHORT],
        }
        of["evaluate"] += ["--out", tmp_path / "out.json"]
        return [name, "--adapter", str(adapter), flag, str(other), *map(str, of[name])]

    return words


@pytest.mark.parametrize("name", ["merge", "generate", "evaluate"])
def test_commands_refuse_another_base_model_unless_it_is_allowed(
    name: str, command: Callable[[str], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(name)) == 2
    assert OTHER in capsys.readouterr().err
    assert cli.main([*command(name), "--allow_other_base"]) == 0
    captured = capsys.readouterr()
    assert OTHER in captured.out + captured.err
    assert "used all the same (--allow_other_base)" in captured.out + captured.err


@pytest.fixture
def continuing(adapter: Path, other: Path, grammar_data: Path, tmp_path: Path) -> dict[str, object]:
    return {
        "model_name": str(other),
        "data_root": str(grammar_data),
        "dataset": "grammar_dataset",
        "use_peft": True,
        "from_peft_checkpoint": str(adapter),
        "output_dir": str(tmp_path / "run"),
        "batching_strategy": "padding",
    }


def test_training_continues_on_another_base_model_only_if_it_is_allowed(
    continuing: dict[str, object], other: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (problem,) = find_problems(resolve(continuing), CHECKS)
    assert OTHER in problem.what and "--model_name DIR" in problem.fix
    run = resolve(continuing | {"allow_other_base": True})
    assert not find_problems(run, CHECKS)
    with activate(run):
        PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(other), adapter, True)
    assert "used all the same (--allow_other_base)" in capsys.readouterr().out


def with_record(adapter: Path, record: str | None) -> None:
    (adapter / BASE_RECORD).unlink(missing_ok=True)
    if record is not None:
        (adapter / BASE_RECORD).write_text(record)


def odd_records(adapter: Path) -> Iterator[str]:
    record = json.loads((adapter / BASE_RECORD).read_text())
    yield "[" * 100_000
    yield from ("{", "[]", "3", "{}")
    for key in record:
        yield json.dumps({name: value for name, value in record.items() if name != key})
    for samples in ([], {"a": 3}, {"a": ["F32"]}, {"a": ["I8", ""]}, {"a": ["F32", "!"]}):
        yield json.dumps(record | {"samples": samples})
    yield json.dumps(record | {"samples": {"a": ["F32", "AAA="]}})


def test_an_adapter_without_a_usable_record_is_compared_by_name(
    adapter: Path, other: Path, tiny_model: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    records = [None, *odd_records(adapter)]
    assert len(records) == 17
    for record in records:
        with_record(copy, record)
        problems, note = compare_base(copy, other, "--model")
        assert not problems, record
        assert note.endswith(f"only the name is compared: it names tiny-llama, and {other} is used")
    _, note = compare_base(copy, tiny_model, "--model")
    assert note.endswith("only the name is compared: tiny-llama")

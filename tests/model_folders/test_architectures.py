"""Models that are no Llamas, and formats that are not read, are refused by name by each command."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import peft
import pytest
import transformers

from llama_recipes_local import cli
from llama_recipes_local.finetuning import main
from llama_recipes_local.model_folders.architectures import check_architecture

SMALL = {
    "vocab_size": 1000,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
# what is said of a folder whose config.json has the model_type
HANDLED = {
    "llama4": "torchtune or TRL",
    "qwen2": "TRL or ms-swift",
    "qwen3_moe": "TRL or ms-swift",
    "mistral": "TRL or Axolotl",
    "gemma3_text": "TRL or Axolotl",
    "phi3": "TRL or Axolotl",
    "deepseek_v3": "LLaMA-Factory or ms-swift",
    "mllama": "finetuning.py with a custom_dataset",
    "Yi": "where they know this type",
    "chatglm": "where they know this type",
    "None": "where they know this type",
}
FORMATS = {
    "model-Q4_K_M.gguf": "convert",
    "model.onnx": "ONNX Runtime",
    "rank0.engine": "TensorRT-LLM",
    "weights.00.npz": "MLX",
    "tf_model.h5": "TensorFlow",
    "flax_model.msgpack": "Flax",
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"{n}?", "completion": "b"}) for n in range(9)))
    return path


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    base = transformers.LlamaForCausalLM.from_pretrained(tiny_model)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(base, config).save_pretrained(str(folder))
    return folder


@pytest.fixture
def qwen(tiny_model: Path, tmp_path: Path) -> Path:
    """A whole Qwen, which plain transformers loads, with a tokenizer."""
    folder = tmp_path / "qwen"
    transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, folder)
    return folder


def commands(model: Path, adapter: Path, rows: Path, out: Path) -> Iterator[Callable[[], object]]:
    """Yield what each command does with a model's folder."""
    flags = {"model_name": str(model), "dataset": str(rows), "output_dir": str(out / "run")}
    yield lambda: main(**flags, use_peft=True)
    for words in (
        ["generate", f"--model_name={model}", "--prompt=x"],
        ["generate", f"--adapter={adapter}", f"--model_name={model}", "--prompt=x"],
        ["merge", f"--adapter={adapter}", f"--model={model}", f"--out={out / 'merged'}"],
        ["evaluate", f"--model_name={model}", f"--dataset={rows}", f"--out={out / 'e.json'}"],
        ["inspect", f"--model_name={model}", f"--dataset={rows}"],
    ):
        yield lambda words=words: cli.main(words)


def check_refused(
    model: Path,
    adapter: Path,
    rows: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
    *said: str,
) -> None:
    out.mkdir()
    for command in commands(model, adapter, rows, out):
        capsys.readouterr()
        with suppress(SystemExit):
            assert command() == 2
        error = capsys.readouterr().err
        assert error.startswith("1 problem found, nothing was started:"), error
        assert any(each in error for each in said), error
    assert not list(out.iterdir())


@pytest.mark.slow
def test_each_command_refuses_a_whole_model_of_another_architecture(
    qwen: Path, adapter: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = f"the model in {qwen} is of type qwen2 (Qwen2ForCausalLM)"
    check_refused(qwen, adapter, rows, tmp_path / "out", capsys, said)


@pytest.mark.slow
@pytest.mark.parametrize("config", [True, False], ids=["with config.json", "without"])
def test_each_command_refuses_a_folder_of_gguf(
    config: bool,
    tiny_model: Path,
    adapter: Path,
    rows: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tiny-Q4_K_M.gguf").write_bytes(b"GGUF")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json") if config else ():
        text = (tiny_model / name).read_text().replace('_embeddings": 512', '_embeddings": 4096')
        (folder / name).write_text(text)  # of a context that is not refused too
    said = f"{folder} holds weights in GGUF, llama.cpp's format only: tiny-Q4_K_M.gguf"
    check_refused(folder, adapter, rows, tmp_path / "out", capsys, said)
    file = folder / "tiny-Q4_K_M.gguf"
    said = f"{file} is in GGUF, llama.cpp's format"
    damaged = f"{file} cannot be read as GGUF"  # evaluate reads such files
    check_refused(file, adapter, rows, tmp_path / "another", capsys, said, damaged)


@pytest.mark.parametrize("kind", HANDLED)
def test_another_type_is_named_with_what_handles_it(kind: str, tmp_path: Path) -> None:
    named = {} if kind == "None" else {"model_type": kind}
    (tmp_path / "config.json").write_text(json.dumps(named | {"architectures": ["X"]}))
    (problem,) = check_architecture(tmp_path, "--model_name")
    assert problem.what == f"the model in {tmp_path} is of type {kind} (X)"
    assert HANDLED[kind] in problem.fix


@pytest.mark.parametrize("name", FORMATS)
def test_another_format_is_named_with_what_handles_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    (problem,) = check_architecture(tmp_path, "--model")
    assert name in problem.what and FORMATS[name] in problem.why
    (tmp_path / "model.safetensors").touch()
    assert check_architecture(tmp_path, "--model") == []


def test_a_llama_with_another_head_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (problem,) = check_architecture(tmp_path, "--model_name")
    assert problem.what.endswith("is a LlamaForSequenceClassification")
    for odd in (["LlamaForCausalLM"], ["LLaMAForCausalLM"], [], None, "x", [5]):
        (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": odd}))
        assert check_architecture(tmp_path, "--model_name") == []

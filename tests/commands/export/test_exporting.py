"""``export`` of a model, of an adapter, and of what cannot be exported."""

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from llama_families import build
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llama_recipes_local.certificates.check_names import CHECKS
from llama_recipes_local.cli import main
from llama_recipes_local.cli.parsing import Parser
from llama_recipes_local.commands.export.flags import add_arguments
from llama_recipes_local.gguf_files.gguf_choices import DIVERGENCES
from llama_recipes_local.models import AutoTokenizer

pytest.importorskip("gguf", reason="the package gguf is missing")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter with random weights, on a model beside it."""
    folder = build("Llama 3.1", tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    config = peft.LoraConfig(target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_()
    adapted.save_pretrained(str(tmp_path / "adapter"))
    template = {"kind": "prompt", "template": "Correct: {}\nAnswer:", "complete": False}
    (tmp_path / "adapter" / "prompt_template.json").write_text(json.dumps(template))
    return tmp_path / "adapter"


def test_an_adapter_is_merged_first(adapter: Path, tmp_path: Path) -> None:
    words = ["--adapter", str(adapter)]
    assert main(["export", *words, "--out", str(tmp_path / "out"), "--type", "f32"]) == 0
    assert main(["merge", *words, "--out", str(tmp_path / "merged")]) == 0
    path = next((tmp_path / "out").glob("*-F32.gguf"))
    assert main(["convert", str(path), "--out", str(tmp_path / "back")]) == 0
    merged, back = (load_file(tmp_path / name / "model.safetensors") for name in ("merged", "back"))
    assert merged.keys() == back.keys()
    assert all(torch.equal(merged[name], back[name]) for name in merged)
    assert not torch.equal(
        merged["model.layers.0.mlp.down_proj.weight"],
        load_file(tmp_path / "model" / "model.safetensors")["model.layers.0.mlp.down_proj.weight"],
    )
    modelfile = (tmp_path / "out" / "Modelfile").read_text()
    assert modelfile.splitlines()[0] == f"FROM ./{path.name}"
    assert 'TEMPLATE """Correct: {{ .Prompt }}\nAnswer:{{ .Response }}"""' in modelfile
    assert 'PARAMETER stop "<|eot_id|>"' in modelfile
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "back")  # for llama.cpp, and the way back
    turns = [{"role": "user", "content": 'She "go".'}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == 'Correct: She "go".\nAnswer:'


def test_ollama_gets_the_turns_of_the_chat_template(tmp_path: Path) -> None:
    folder = build("SmolLM2", tmp_path / "model")
    words = ["--model_name", str(folder), "--out", str(tmp_path / "out")]
    assert main(["export", *words]) == 0
    text = (tmp_path / "out" / "Modelfile").read_text()
    template = text.split('"""')[1]
    filled = template.partition("{{ else }}")[2].replace("{{ end }}", "")
    filled = filled.replace("{{ .Prompt }}", "Hi").partition("{{ .Response }}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "Hi"}]
    expected = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert filled[0] == expected
    assert filled[2] == "<|im_end|>\n"


def test_ollama_adds_the_begin_token_itself(tmp_path: Path) -> None:
    folder = build("Llama 3.1", tmp_path / "model")
    assert main(["export", "--model_name", str(folder), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "Modelfile").read_text()
    assert "<|start_header_id|>user" in text
    assert "<|begin_of_text|>" not in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "neither a model nor an adapter is named"),
        (["--model_name", "nowhere"], "nowhere"),
        (["--adapter", "empty", "--dataset", "nosuch"], "1 problem found"),
        (["--model_name", "model", "--format", "safetensors", "--type", "f16"], "--type f16 with"),
        (["--model_name", "model", "--type", "q3_k"], "q3_k"),
        (["--model_name", "model", "--format", "onnx"], "onnx"),
        (["--model_name", "model", "--type", "q4_k_m", "--tokenizer_name", "other"], "other"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build("SmolLM2", tmp_path / "model")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["export", *words, "--out", "out"])
    except SystemExit as error:  # of the command line's parser
        code = int(str(error.code))
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_corrupt_gguf_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.gguf"
    assert main(["convert", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "does not exist" in capsys.readouterr().err
    for content in (b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 64, b"PK\x03\x04" * 100):
        path.write_bytes(content)
        assert main(["convert", str(path), "--out", str(tmp_path / "out")]) == 2
        assert "cannot be read as GGUF" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_several_findings_are_accepted_with_commas_or_by_several_flags() -> None:
    parser = Parser()
    add_arguments(parser)
    names = list(CHECKS)[:3]
    words = ["--out", "x", "--accept", ",".join(names[:2]), "--accept", names[2]]
    assert parser.parse(words).accept == names
    with pytest.raises(SystemExit):
        parser.parse(["--out", "x", "--accept", f"{names[0]},nothing"])


def test_what_the_certificate_refuses_is_kept_beside(
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Quantising and comparing a large model takes long; the user may look at it, and use it."""
    monkeypatch.setitem(DIVERGENCES, "q4_0", 1e-9)
    words = ["export", "--adapter", str(adapter), "--type", "q4_0", "--out", str(tmp_path / "out")]
    assert main([*words, "--accept", "outputs"]) == 0
    accepted = {path.name for path in (tmp_path / "out").iterdir()}
    shutil.rmtree(tmp_path / "out")
    for name in ("out-refused", "out-refused-2"):  # nothing is replaced
        assert main(words) == 2
        printed = capsys.readouterr()
        assert f"what was written is kept in {tmp_path / name}:" in printed.err
        assert "fix: take another --type or --format, or accept it" in printed.err
        assert {path.name for path in (tmp_path / name).iterdir()} == accepted
        certificate = json.loads((tmp_path / name / "certificate.json").read_text())
        assert (certificate["refused"], certificate["accepted"]) == (["outputs"], [])
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("form", ["gguf", "fp8", "safetensors"])
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_one_number_that_is_not_finite_is_refused(
    form: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build("Llama 3.1", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors[name][0, 0] = float("nan")  # far from the middle, which is looked at before
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    words = ["--model_name", str(folder), "--format", form, "--out", str(tmp_path / "out")]
    assert main(["export", *words]) == 2
    error = capsys.readouterr().err
    assert "1 problem found, what was written is removed:" in error
    assert f"{name} is not finite" in error and "--accept" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

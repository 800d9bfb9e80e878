"""An export format is a class and a line in ``FORMATS``; merge and convert write it."""

import sys
from pathlib import Path

import peft
import pytest
import transformers
from safetensors.torch import load_file, save_file

from llama_recipes_local import cli
from llama_recipes_local.export_formats import FORMATS

FORMAT = '''
"""One file with the names of the weights and the sum of each."""

from llama_recipes_local.errors import Problem


class SumsExport:
    def __init__(self, model):
        self.model = model

    def check(self, out):
        if self.model.size() > 10**9:
            return [Problem("the model is too large", "sums takes 1 GB at most")]
        if out.name == "refused":
            return [Problem(f"--out {out} is refused", "for the test")]
        return []

    def written_tokenizer(self):
        return None

    def write(self, folder):
        model = self.model
        lines = (f"{name} {model.weight(name).double().sum():.6f}\\n" for name in model.weights)
        (folder / "sums.txt").write_text("".join(lines))

    def read_back(self, folder):
        return None
'''
TEMPLATE = '{"kind": "prompt", "template": "Say {}", "complete": false}'


@pytest.fixture
def sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the format of a temporary module."""
    (tmp_path / "sums_format.py").write_text(FORMAT)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "sums_format", raising=False)
    monkeypatch.setitem(FORMATS, "sums", __import__("sums_format").SumsExport)


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path) -> Path:
    """An adapter that changes nothing, with the prompt template of its run."""
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    config = peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(model, config).save_pretrained(str(tmp_path / "adapter"))
    (tmp_path / "adapter" / "prompt_template.json").write_text(TEMPLATE)
    return tmp_path / "adapter"


def expected(model: Path) -> set[str]:
    tensors = load_file(model / "model.safetensors")
    return {f"{name} {tensor.double().sum():.6f}" for name, tensor in tensors.items()}


@pytest.mark.usefixtures("sums")
def test_merge_writes_a_new_format(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    words = ["merge", "--adapter", adapter, "--format", "sums", "--out", tmp_path / "out"]
    assert cli.main([*map(str, words)]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "custody.json",
        "sums.txt",
        "prompt_template.json",
    }
    assert set((tmp_path / "out/sums.txt").read_text().splitlines()) == expected(tiny_model)
    assert (tmp_path / "out/prompt_template.json").read_text() == TEMPLATE


@pytest.mark.usefixtures("sums")
def test_convert_writes_a_new_format(tiny_model: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    save_file(
        load_file(tiny_model / "model.safetensors"),
        sharded / "shard-00001-model-00001-of-00001.safetensors",
    )
    words = ["convert", sharded, "--model", tiny_model, "--format", "sums"]
    assert cli.main([*map(str, words), "--out", str(tmp_path / "out")]) == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"sums.txt", "custody.json"}
    assert set((tmp_path / "out/sums.txt").read_text().splitlines()) == expected(tiny_model)


@pytest.mark.usefixtures("sums")
def test_what_the_format_refuses_is_not_written(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["merge", "--adapter", adapter, "--format", "sums", "--out", tmp_path / "refused"]
    assert cli.main([*map(str, words)]) == 2
    assert "is refused" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()


@pytest.mark.usefixtures("sums")
def test_an_unknown_format_is_refused_with_the_nearest(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["merge", "--adapter", adapter, "--format", "sum", "--out", tmp_path / "out"]
    with pytest.raises(SystemExit):
        cli.main([*map(str, words)])
    error = capsys.readouterr().err
    assert "did you mean sums? (choose from safetensors, " in error


def test_a_corrupt_prompt_template_is_refused_before_weights_are_written(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (adapter / "prompt_template.json").write_text("{}")
    words = ["merge", "--adapter", adapter, "--out", tmp_path / "out"]
    assert cli.main([*map(str, words)]) == 2
    assert "is not a prompt template" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

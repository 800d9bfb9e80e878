"""The commands that serve a result."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.serving_lines import of_adapter, of_folder, of_lora_file


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base model").mkdir()
    return tmp_path


def adapter(here: Path, **settings: Any) -> Path:
    folder = here / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 8, "bias": "none", **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").touch()
    return folder


def vllm(text: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.strip().startswith("vLLM:"))
    return shlex.split(line.partition(":")[2])


def test_vllm_takes_an_adapter_beside_its_base(here: Path) -> None:
    found = vllm(of_adapter(adapter(here), here / "base model"))
    assert found == shlex.split(
        "vllm serve 'base model' --enable-lora --lora-modules adapter=adapter"
    )


def test_vllm_is_given_the_rank_where_its_default_is_smaller(here: Path) -> None:
    found = vllm(of_adapter(adapter(here, r=8, rank_pattern={"q": 40}), here / "base model"))
    assert found[-2:] == ["--max-lora-rank", "64"]


@pytest.mark.parametrize(
    "settings",
    [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"bias": "all"}, {"r": 1024}],
)
def test_what_vllm_does_not_take_is_merged_first(settings: dict[str, Any], here: Path) -> None:
    found = vllm(of_adapter(adapter(here, **settings), here / "base model"))
    assert "merge" in found
    assert found[-4:] == ["&&", "vllm", "serve", "adapter-merged"]


def test_folders_of_other_commands_are_new_ones(here: Path) -> None:
    (here / "adapter-gguf").mkdir()
    text = of_adapter(adapter(here), here / "base model")
    assert "--out adapter-gguf-2" in text


def test_a_file_is_named_as_it_is(here: Path) -> None:
    folder = here / "Out Put"
    folder.mkdir()
    (folder / "m-Q8_0.gguf").touch()
    text = of_folder(folder)
    assert "llama-server -m 'Out Put/m-Q8_0.gguf'" in text
    assert "ollama create out-put -f 'Out Put/Modelfile'" in text
    lora = of_lora_file(folder / "a-lora.gguf", here / "base model", adapter(here))
    assert "--lora 'Out Put/a-lora.gguf'" in lora
    assert "-m 'base model-gguf/base model-Q8_0.gguf'" in lora


@pytest.mark.parametrize(
    ("name", "ollama"), [("数据-gguf", "gguf"), ("模型", "model"), ("_mine.v2", "mine.v2")]
)
def test_a_name_of_ollama_begins_with_a_letter_or_digit(here: Path, name: str, ollama: str) -> None:
    folder = here / name
    folder.mkdir()
    (folder / "m-Q8_0.gguf").touch()
    assert f"ollama create {ollama} -f" in of_folder(folder)


def test_what_is_quantised_is_not_exported_again(here: Path) -> None:
    folder = here / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert "export --model_name model --out model-gguf" in of_folder(folder)
    (folder / "config.json").write_text('{"quantization_config": {"quant_method": "fp8"}}')
    text = of_folder(folder)
    assert "vllm serve model" in text
    assert "export" not in text

"""What is listed is what the models have, and the commands are ones that hf and pip take."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import cli
from llama_recipes_local.commands.check.command import examine
from llama_recipes_local.commands.prepare.smollm2.flags import DEFAULT_FOLDER
from llama_recipes_local.commands.what_to_bring.data_files import bring_data
from llama_recipes_local.commands.what_to_bring.model_files import bring_model
from llama_recipes_local.commands.what_to_bring.published_models import PUBLISHED, find
from llama_recipes_local.datasets.registry import DATASETS

WEIGHTS = {  # as the models' pages and their indexes count them
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Llama-2-13b-chat-hf": 13_015_864_320,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-70B-Instruct": 70_553_706_496,
    "meta-llama/Llama-3.1-405B": 405_853_388_800,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "codellama/CodeLlama-34b-hf": 33_743_970_304,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "01-ai/Yi-6B": 6_061_035_520,
    "01-ai/Yi-34B": 34_388_917_248,
}


@pytest.mark.parametrize(("name", "weights"), WEIGHTS.items())
def test_the_size_is_that_of_the_published_weights(name: str, weights: int) -> None:
    assert bring_model(name).bytes == 2 * weights


def test_each_model_has_its_weights_its_configuration_and_a_tokenizer() -> None:
    assert len(PUBLISHED) > 50
    for name, model in PUBLISHED.items():
        files = [file.name for file in bring_model(name).files]
        shards = [file for file in files if re.fullmatch(r"model-\d+-of-\d+\.safetensors", file)]
        assert len(shards) == (model.shards if model.shards > 1 else 0), name
        assert any(file.endswith("safetensors") for file in files)
        assert {"config.json", "tokenizer_config.json"} <= set(files)
        assert ("model.safetensors.index.json" in files) == (
            model.shards != 1 and model.safetensors
        )


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("meta-llama/Meta-Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("llama-3-8b-instruct", "meta-llama/Meta-Llama-3-8B-Instruct"),
        ("llama-2-7b", "meta-llama/Llama-2-7b-hf"),
        ("smollm2-360m", "HuggingFaceTB/SmolLM2-360M"),
    ],
)
def test_a_model_is_found_as_people_call_it(word: str, name: str) -> None:
    found = find(word)
    assert found is not None and found.name == name


@pytest.mark.parametrize("name", ["meta-llama/Llama-3.1-8B", "hfl/chinese-llama-2-7b"])
def test_hf_takes_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub's own program reads the words; nothing is fetched."""
    from huggingface_hub.cli import download, hf

    asked: dict[str, Any] = {}
    monkeypatch.setattr(download, "snapshot_download", lambda **words: asked.update(words) or "x")
    (line,) = bring_model(name).commands["hf"]
    program, *words = shlex.split(line)
    assert program == "hf"
    monkeypatch.setattr("sys.argv", [program, *words])
    try:
        hf.main()
    except SystemExit as ended:
        assert not ended.code
    assert asked["repo_id"] == name
    assert asked["local_dir"] == name.split("/")[1]
    assert "original/*" in asked["ignore_patterns"]
    assert ("*.bin" in asked["ignore_patterns"]) == PUBLISHED[name].safetensors


def test_every_data_set_of_the_guide_is_listed() -> None:
    of_ones_own = {"custom_dataset", "local_dataset", "mixed_dataset"}
    for name in DATASETS.keys() - of_ones_own:
        assert bring_data(name)[0].name == name
        assert bring_data(name.removesuffix("_dataset"))[0].name == name
    assert bring_data("toxicchat")[0].name == "llamaguard_toxicchat_dataset"


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = cli.main(["what-to-bring", *words])
    told = capsys.readouterr()
    return code, told.out if code == 0 else told.out + told.err


def test_one_command_lists_model_data_and_packages(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "meta-llama/Llama-3.1-8B", "--dataset", "samsum", "--method", "qlora"]
    code, text = printed(capsys, *words, "--cuda", "12.8", "--python", "3.12")
    assert code == 0
    for each in ("16.06 GB", "model-00004-of-00004.safetensors, 4 files", "corpus.7z", "cu128"):
        assert each in text
    for each in ("HF_ENDPOINT=https://hf-mirror.com hf download", "modelscope download --model"):
        assert each in text
    assert "--dataset samsum_dataset --config qlora" in text
    assert "[quantization,fast]" in text


def test_wrong_names_are_reported_together_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, text = printed(capsys, "--model", "meta-lama/Llama-3.1-8B", "--dataset", "samsun")
    assert code == 2
    assert "did you mean --model meta-llama/Llama-3.1-8B?" in text
    assert "did you mean --dataset samsum?" in text


def test_of_another_model_its_configuration_is_enough(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    weights = (tiny_model / "model.safetensors").stat().st_size
    assert 0 <= weights - 2 * bring_model(str(tmp_path)).bytes < 5000  # float32, and a header


def test_check_takes_what_it_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, grammar_data: Path
) -> None:
    own = tmp_path / "rows"
    own.mkdir()
    for number in range(3):
        (own / f"{number}.jsonl").write_text('{"text": "a"}\n' * 9)
    code, text = printed(capsys, "--dataset", str(own), "--json")
    assert code == 0
    (own / "what-to-bring.json").write_text(text)
    assert json.loads(text)["packages"]["commands"]["pip"]
    assert examine(own).problems == []
    (own / "0.jsonl").unlink()
    (own / "1.jsonl").write_text('{"text": "a"}\n' * 8)
    assert [problem.what.rsplit("/")[-1] for problem in examine(own).problems] == [
        "0.jsonl is missing",
        "1.jsonl is short",
    ]


def test_a_mixture_brings_each_of_its_sources(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    code, text = printed(capsys, "--dataset", f"samsum:0.7,{tmp_path / 'rows.jsonl'}:0.3")
    assert code == 0
    assert "samsum_dataset: folder datasets/samsum" in text and "rows.jsonl, 0.0 kB" in text
    run = text.splitlines()[-1].split()
    assert run[run.index("--dataset") + 1] == "samsum_dataset:0.7,datasets/rows.jsonl:0.3"
    # what the copy of a file is compared with is for the folder that it is put into
    assert bring_data(str(tmp_path / "rows.jsonl"))[0].folder == "datasets"


@pytest.mark.parametrize(
    ("mixture", "said"),
    [
        ("samsun:7,grammar:3", ["did you mean --dataset samsum?"]),
        ("samsum:7,grammar", ["names grammar_dataset without a weight"]),
        ("samsum:x,nothing:1", ["--dataset nothing is not known", "listed are "]),
        (
            "custom_dataset",
            ["--dataset custom_dataset is not known", "it is made of files of yours"],
        ),
    ],
)
def test_a_wrong_mixture_is_refused(
    mixture: str, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = printed(capsys, "--dataset", mixture)
    assert code == 2 and all(words in text for words in said)


def test_without_a_model_it_is_the_one_among_the_packages(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, text = printed(capsys)
    assert code == 0 and "prepare smollm2" in text
    *_, check, run = text.splitlines()
    assert check.startswith("and on the machine")
    assert run.split()[2:] == ["--model_name", DEFAULT_FOLDER, "--dataset", "PATH", "--use_peft"]


def test_a_folder_without_files_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, text = printed(capsys, "--dataset", str(tmp_path))
    assert code == 2 and f"--dataset {tmp_path} has no files" in text


def test_what_is_refused_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("what-to-bring", "--model", "llama-9", "--dataset", "nothing", "--json")
    assert cli.main([*words]) == 2
    printed = capsys.readouterr()
    problems = json.loads(printed.out)["problems"]
    assert [each["what"].split()[:2] for each in problems] == [
        ["--model", "llama-9"],
        ["--dataset", "nothing"],
    ]
    assert all(each["fix"] in printed.err for each in problems)

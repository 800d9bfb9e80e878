"""Each kind of bad input gets its one clear report, exit code 2, and nothing is written."""

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fire
import py7zr
import pytest
import torch

from llama_recipes_local import finetuning_run  # noqa: F401  its first import prints a line
from llama_recipes_local.finetuning import main

TORCHRUN = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


@pytest.fixture
def work(
    tiny_model: Path, grammar_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The working directory: ``model/`` and the grammar data in it are this test's own to break."""
    shutil.copytree(tiny_model, tmp_path / "model")
    shutil.copytree(grammar_data / "datasets", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def good_flags(**changes: Any) -> list[str]:
    """The flags of a run that works, with changes; None leaves a flag out."""
    flags = {
        "model_name": "model",
        "dataset": "grammar_dataset",
        "context_length": 512,
        "use_peft": True,
        "output_dir": "out",
    }
    flags |= {name.replace("__", "."): value for name, value in changes.items()}
    return [f"--{name}={value}" for name, value in flags.items() if value is not None]


def everything_in(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


Refused = Callable[[list[str]], str]


@pytest.fixture
def refused(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Refused:
    """Runs the command line in this process; returns the report once it has been refused."""

    def run(command: list[str]) -> str:
        before = everything_in(work)
        monkeypatch.setattr(sys, "argv", ["finetuning.py", *command])
        with pytest.raises(SystemExit) as raised:
            fire.Fire(main)
        assert raised.value.code == 2
        said = capsys.readouterr()
        assert said.out == "" and "Traceback" not in said.err
        assert everything_in(work) == before
        return said.err

    return run


@dataclass
class Case:
    """One mistake: the flags, what is done to the files and the environment, what is reported."""

    what: str
    why: str
    fix: str
    flags: dict[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    spoil: Callable[[Path], Any] = lambda work: None
    environment: dict[str, str] = field(default_factory=dict)


def remove(name: str) -> Callable[[Path], Any]:
    return lambda work: (work / name).unlink()


def write(name: str, content: str | bytes) -> Callable[[Path], Any]:
    data = content.encode() if isinstance(content, str) else content
    return lambda work: (work / name).write_bytes(data)


def only_pickled_weights(work: Path) -> None:
    (work / "model/model.safetensors").rename(work / "model/pytorch_model.bin")


def a_missing_shard(work: Path) -> None:
    (work / "model/model.safetensors").rename(work / "model/model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = {"metadata": {}, "weight_map": shards}
    (work / "model/model.safetensors.index.json").write_text(json.dumps(index))


def no_weights(work: Path) -> None:
    (work / "model/model.safetensors").unlink()


def another_model_type(work: Path) -> None:
    path = work / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "gpt2"}))


def a_folder_of_words(work: Path) -> None:
    (work / "nothing").mkdir()
    (work / "nothing/README.md").touch()


def archive(contents: dict[str, str], **first: Any) -> Callable[[Path], Any]:
    """Write ``corpus.7z``; in its header, the first member's fields are replaced."""

    def spoil(work: Path) -> None:
        with py7zr.SevenZipFile(work / "corpus.7z", "w") as opened:
            for name, text in contents.items():
                opened.writestr(text, name)
            if first:
                opened.header.files_info.files[0].update(first)

    return spoil


TRAIN = "datasets/grammar/gtrain_10k.csv"
SAMSUM = {"dataset": "samsum_dataset", "samsum_dataset__data_path": "corpus.7z"}
LINK = 0x8000 | (stat.S_IFLNK | 0o777) << 16
CASES = {
    "unknown flag": Case(
        "unknown flag --batch_size_trainning",
        "no configuration has a field of this name",
        "did you mean --batch_size_training?",
        flags={"batch_size_trainning": 2},
    ),
    "unknown flag unlike any other": Case(
        "unknown flag --zzz",
        "no configuration has a field of this name",
        "llama-recipes-local finetune --help",
        flags={"zzz": 2},
    ),
    "misspelt dotted flag": Case(
        "unknown flag --grammar_dataset.train_spilt",
        "no configuration has a field of this name",
        "did you mean --grammar_dataset.train_split?",
        flags={"grammar_dataset__train_spilt": "a.csv"},
    ),
    "value of a wrong type": Case(
        "--num_epochs cannot be 'many'",
        "train_config.num_epochs: expected an integer",
        "give --num_epochs a value of that type",
        flags={"num_epochs": "many"},
    ),
    "flag without its value": Case(
        "--tokenizer_name has no value",
        "train_config.tokenizer_name: expected a string",
        "give --tokenizer_name a value of that type",
        words=("--tokenizer_name",),
    ),
    "stray word": Case(
        "'grammar_dataset' stands on the command line without a flag",
        "every setting has a flag",
        "write --flag value",
        words=("grammar_dataset",),
    ),
    "no model named": Case(
        "no model was named",
        "fine-tuning starts from a model's folder",
        "--model_name /path/to",
        flags={"model_name": None},
    ),
    "missing model folder": Case(
        "--model_name ./modle: there is no folder {work}/modle",
        "{work} holds datasets, model",
        "--model_name DIR",
        flags={"model_name": "./modle"},
    ),
    "a name on the Hub": Case(
        "--model_name meta-llama/Llama-2-7b-hf: there is no folder {work}/meta-llama/Llama-2-7b-hf",
        "models are loaded from local folders only",
        "hf download meta-llama/Llama-2-7b-hf --local-dir DIR",
        flags={"model_name": "meta-llama/Llama-2-7b-hf"},
    ),
    "folder without config.json": Case(
        "{work}/model has no config.json",
        "{work}/model holds generation_config.json, model.safetensors, tokenizer.json",
        "Hugging Face layout: --model_name DIR",
        spoil=remove("model/config.json"),
    ),
    "config.json is not JSON": Case(
        "{work}/model/config.json is not a JSON object",
        "Expecting",
        "copy the model again",
        spoil=write("model/config.json", "{'model_type'}"),
    ),
    "config.json is a list": Case(
        "{work}/model/config.json is not a JSON object",
        "it is []",
        "copy the model again",
        spoil=write("model/config.json", "[]"),
    ),
    "another type of model": Case(
        "the model in {work}/model is of type gpt2",
        "the types that can be used here are llama (",
        "--model_name DIR",
        spoil=another_model_type,
    ),
    "no weights": Case(
        "{work}/model has no weights in safetensors",
        "{work}/model holds config.json",
        "*.safetensors",
        spoil=no_weights,
    ),
    "pickled weights only": Case(
        "{work}/model has no weights in safetensors",
        "only pytorch_model.bin was found, a pickle",
        "llama-recipes-local convert {work}/model --out DIR",
        spoil=only_pickled_weights,
    ),
    "a shard missing": Case(
        "{work}/model has only 1 of 2 weight files",
        "missing: model-00002-of-00002.safetensors",
        "copy these files into the folder",
        spoil=a_missing_shard,
    ),
    "no tokenizer": Case(
        "{work}/model has no tokenizer",
        "tokenizer.json or tokenizer.model is needed",
        "--tokenizer_name DIR",
        spoil=remove("model/tokenizer.json"),
    ),
    "missing tokenizer folder": Case(
        "{work}/nowhere has no tokenizer",
        "{work}/nowhere does not exist",
        "--tokenizer_name DIR",
        flags={"tokenizer_name": "nowhere"},
    ),
    "missing adapter": Case(
        "--from_peft_checkpoint {work}/nowhere has no adapter_config.json",
        "{work}/nowhere does not exist",
        "name the folder of a saved adapter",
        flags={"from_peft_checkpoint": "nowhere"},
    ),
    "missing data file": Case(
        "{work}/nowhere.csv does not exist",
        "{work} holds datasets, model",
        "--grammar_dataset.train_split=FILE",
        flags={"grammar_dataset__train_split": "nowhere.csv"},
    ),
    "empty data file": Case(
        "{work}/" + TRAIN + " has no rows",
        "the file is empty",
        "--grammar_dataset.train_split=FILE",
        spoil=write(TRAIN, ""),
    ),
    "header only": Case(
        "{work}/" + TRAIN + " has no rows",
        "there is nothing to train on",
        "--grammar_dataset.train_split=FILE",
        spoil=write(TRAIN, "input,target\n"),
    ),
    "missing column": Case(
        "{work}/" + TRAIN + " has no column target",
        "the columns found are input, output",
        "--grammar_dataset.train_split=FILE",
        spoil=write(TRAIN, "input,output\na,b\n"),
    ),
    "not UTF-8": Case(
        "byte 13 of {work}/" + TRAIN + ", in line 2, is not UTF-8",
        "it is 0xd6",
        "save it as UTF-8",
        spoil=write(TRAIN, b"input,target\n\xd6\xd0,b\n"),
    ),
    "a pointer of Git LFS": Case(
        "{work}/" + TRAIN + " is a pointer of Git LFS, not the data",
        "cloned without Git LFS",
        "git lfs install",
        spoil=write(TRAIN, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    ),
    "data root that is not there": Case(
        "{work}/elsewhere/" + TRAIN + " does not exist",
        "neither does {work}/elsewhere/datasets/grammar",
        "prepare grammar --out {work}/elsewhere/datasets/grammar, or name another: "
        "--grammar_dataset.train_split=FILE",
        flags={
            "data_root": "elsewhere",
            "grammar_dataset__test_split": "{work}/datasets/grammar/grammar_validation.csv",
        },
    ),
    "half a JSON line": Case(
        "line 2 of {work}/alpaca.jsonl is not JSON",
        "Unterminated string",
        "--alpaca_dataset.data_path=FILE",
        flags={"dataset": "alpaca_dataset", "alpaca_dataset__data_path": "alpaca.jsonl"},
        spoil=write("alpaca.jsonl", '{"instruction": "a", "output": "b"}\n{"instruction": "a'),
    ),
    "JSON lines of mixed shapes": Case(
        "line 2 of {work}/alpaca.jsonl is not a JSON object",
        "it is ['a', 'b']",
        "--alpaca_dataset.data_path=FILE",
        flags={"dataset": "alpaca_dataset", "alpaca_dataset__data_path": "alpaca.jsonl"},
        spoil=write("alpaca.jsonl", '{"instruction": "a", "output": "b"}\n["a", "b"]\n'),
    ),
    "a folder with nothing readable": Case(
        "no Alpaca data in {work}/nothing",
        "it holds README.md; read is alpaca_data.json",
        "--alpaca_dataset.data_path=FILE",
        flags={"dataset": "alpaca_dataset", "alpaca_dataset__data_path": "nothing"},
        spoil=a_folder_of_words,
    ),
    "an empty archive": Case(
        "{work}/corpus.7z is empty",
        "the archive holds no file",
        "download it again",
        flags=SAMSUM,
        spoil=archive({}),
    ),
    "a damaged archive": Case(
        "{work}/corpus.7z cannot be read",
        "not a 7z file",
        "download it again",
        flags=SAMSUM,
        spoil=write("corpus.7z", "PK"),
    ),
    "an archive with a path outside": Case(
        "{work}/corpus.7z is not read",
        "../train.json leads outside",
        "get the archive from where it is published",
        flags=SAMSUM,
        spoil=archive({"train.json": "[]", "val.json": "[]"}, filename="../train.json"),
    ),
    "an archive with a link": Case(
        "{work}/corpus.7z is not read",
        "train.json is a link",
        "get the archive from where it is published",
        flags=SAMSUM,
        spoil=archive({"train.json": "/etc/passwd", "val.json": "[]"}, attributes=LINK),
    ),
    "unknown data set": Case(
        "unknown --dataset grammer_dataset",
        "the choices are alpaca_dataset, custom_dataset, grammar_dataset, guanaco_dataset",
        "did you mean --dataset grammar_dataset?",
        flags={"dataset": "grammer_dataset"},
    ),
    "unknown adapter": Case(
        "unknown --peft_method qlora",
        "the choices are lora, llama_adapter, prefix",
        "did you mean --peft_method lora?",
        flags={"peft_method": "qlora"},
    ),
    "unknown batching strategy": Case(
        "unknown --batching_strategy bucket",
        "the choices are packing, padding",
        "use --batching_strategy packing",
        flags={"batching_strategy": "bucket"},
    ),
    "unknown dtype": Case(
        "unknown --dtype bfloat",
        "bfloat16",
        "did you mean --dtype bfloat16?",
        flags={"dtype": "bfloat"},
    ),
    "unknown quantization": Case(
        "unknown --quantization 2bit",
        "the choices are 4bit, 8bit",
        "use --quantization 4bit or 8bit",
        flags={"quantization": "2bit"},
    ),
    "context longer than the model's": Case(
        "--context_length 4096",
        "the model has 512 positions",
        "use --context_length 512 or less",
        flags={"context_length": None},
    ),
    "FSDP without torchrun": Case(
        "--enable_fsdp in a process that torchrun did not start",
        "FSDP trains with several processes",
        "torchrun --nproc_per_node 2 finetuning.py --enable_fsdp",
        flags={"enable_fsdp": True},
    ),
    "a rank that a launcher left behind": Case(
        "RANK=1 in the environment",
        "not set: LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT",
        "unset RANK",
        environment={"RANK": "1"},
    ),
    "more adapter layers than the model has": Case(
        "--adapter_layers 30",
        "has 2 layers (num_hidden_layers)",
        "use --adapter_layers 2",
        flags={"peft_method": "llama_adapter"},
    ),
    "adapter without use_peft": Case(
        "--peft_method lora without --use_peft",
        "all weights would be trained",
        "add --use_peft, or leave --peft_method out",
        flags={"peft_method": "lora", "use_peft": None},
    ),
    "adapter with use_peft off": Case(
        "--peft_method lora without --use_peft",
        "all weights would be trained",
        "add --use_peft, or leave --peft_method out",
        flags={"train_config__peft_method": "lora", "use_peft": False},
    ),
    "output folder is a file": Case(
        "--output_dir {work}/model/config.json",
        "{work}/model/config.json is a file",
        "--output_dir DIR",
        flags={"output_dir": "model/config.json"},
    ),
    "output folder below a file": Case(
        "--output_dir {work}/model/config.json/out",
        "{work}/model/config.json is a file",
        "--output_dir DIR",
        flags={"output_dir": "model/config.json/out"},
    ),
    "batch size of zero": Case(
        "--batch_size_training is 0",
        "it must be above 0",
        "give it above 0",
        flags={"batch_size_training": 0},
    ),
    "negative number of steps": Case(
        "--max_train_step is -1",
        "it must be 0 or more",
        "give it 0 or more",
        flags={"max_train_step": -1},
    ),
    "custom data set's file missing": Case(
        "{work}/mine.py does not exist",
        "{work} holds datasets, model",
        "--custom_dataset.file=FILE.py:FUNCTION",
        flags={"dataset": "custom_dataset", "custom_dataset__file": "mine.py"},
    ),
    "custom data set's file is not Python": Case(
        "{work}/model/config.json is not a .py file",
        "it is run as Python",
        "--custom_dataset.file=FILE.py:FUNCTION",
        flags={"dataset": "custom_dataset", "custom_dataset__file": "model/config.json"},
    ),
    "custom data set's function missing": Case(
        "{work}/mine.py defines no function rows",
        "its functions are row",
        "--custom_dataset.file=FILE.py:FUNCTION",
        flags={"dataset": "custom_dataset", "custom_dataset__file": "mine.py:rows"},
        spoil=write("mine.py", "def row(config, tokenizer, split): ...\n"),
    ),
}
ON_CPU = {
    "float16 on CPU": Case(
        "--use_fp16 on CPU",
        "training in float16 needs a CUDA device",
        "on CPU training is in float32",
        flags={"use_fp16": True},
    ),
    "flash attention without its package": Case(
        "--attn_implementation flash_attention_2",
        "it needs the package flash-attn, which is not installed",
        f"{sys.executable} -m pip install -e '{Path(__file__).resolve().parents[2]}[flash]'",
        flags={"attn_implementation": "flash_attention_2"},
    ),
}


def check(case: Case, work: Path, refused: Refused) -> None:
    case.spoil(work)
    flags = {
        name: value.replace("{work}", str(work)) if isinstance(value, str) else value
        for name, value in case.flags.items()
    }
    report = refused([*good_flags(**flags), *case.words])
    first, *rest = report.strip().splitlines()
    assert first == "1 problem found, nothing was started:", report
    what, why, fix = (text.replace("{work}", str(work)) for text in (case.what, case.why, case.fix))
    assert rest[0].startswith(f"1. {what}"), report
    assert rest[1].startswith("   why: ") and why in rest[1], report
    assert rest[2].startswith("   fix: ") and fix in rest[2], report


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_mistake_gets_one_report(
    case: Case, work: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)
    check(case, work, refused)


@pytest.mark.parametrize("case", ON_CPU.values(), ids=ON_CPU)
def test_what_this_machine_cannot_do(
    case: Case, work: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("llama_recipes_local.extras.find_spec", lambda name: None)
    check(case, work, refused)


def test_8_bit_with_fsdp(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    report = refused(good_flags(quantization="8bit", enable_fsdp=True))
    assert "--quantization 8bit with weights that are sharded" in report
    assert "FSDP's all-gather does not keep a row" in report
    assert "use --quantization 4bit, or replicate the weights: --sharding_strategy" in report


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_cannot_be_written(work: Path, refused: Refused) -> None:
    (work / "closed").mkdir(mode=0o500)
    report = refused(good_flags(output_dir="closed/out"))
    assert f"--output_dir {work}/closed/out" in report
    assert f"{work}/closed cannot be written by this user" in report


def test_several_mistakes_are_in_one_report(work: Path, refused: Refused) -> None:
    (work / "model/config.json").unlink()
    (work / TRAIN).write_text("")
    report = refused(
        [*good_flags(lrr=1, num_epochs="x", output_dir="model/tokenizer.json"), "word"]
    )
    assert report.startswith("6 problems found, nothing was started:\n")
    for number, text in enumerate(
        [
            "'word' stands on the command line",
            "unknown flag --lrr",
            "--num_epochs cannot be 'x'",
            f"{work}/model has no config.json",
            f"{work / TRAIN} has no rows",
            f"--output_dir {work}/model/tokenizer.json",
        ],
        1,
    ):
        assert f"\n{number}. {text}" in report


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("rows.json", "{work}/rows.json does not exist"),
        ("rows.csv", " of {work}/rows.csv, in line 3, is not UTF-8"),
    ],
)
def test_own_files_are_looked_for_without_a_tokenizer(
    file: str, what: str, work: Path, refused: Refused
) -> None:
    (work / "rows.csv").write_bytes("text\nplain\n\u8bed\u6587\n".encode("gb18030"))
    report = refused(good_flags(model_name="nowhere", dataset=file))
    assert "there is no folder" in report and what.format(work=work) in report


def test_own_rows_are_not_formatted_without_a_tokenizer(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    (work / "rows.jsonl").write_text(f"{json.dumps({'messages': turns})}\n" * 2)
    with pytest.raises(SystemExit):
        fire.Fire(main, command=good_flags(model_name="nowhere", dataset="rows.jsonl"))
    report = capsys.readouterr().err
    assert report.startswith("1 problem found") and "there is no folder" in report


def test_a_data_set_without_a_name_reports_no_missing_files(refused: Refused) -> None:
    report = refused(["--model_name=model", "--context_length=64", "--dataset"])
    assert report.startswith("1 problem found, nothing was started:\n1. --dataset has no value")


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_is_not_a_mistake(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        fire.Fire(main, command=[word])
    assert raised.value.code == 0
    said = "".join(capsys.readouterr())
    flags = ("model_name", "use_peft", "lora_alpha", "data_root", "sharding_strategy")
    for flag in (*flags, "train_only", "adapter_len", "num_virtual_tokens"):
        assert f"\n  --{flag}" in said

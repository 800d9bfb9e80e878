"""Files of settings: texts stay as they are written; a problem names the line."""

import codecs
import json
from pathlib import Path

import pytest
import yaml

from llama_recipes_local.recipes import settings_file
from llama_recipes_local.recipes.settings_file import read_settings
from llama_recipes_local.typed_words import Typed


def read(folder: Path, content: str | bytes, name: str = "mine.yaml") -> settings_file.SettingsFile:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_settings(str(path))


TEXTS = (
    *("no", "yes", "on", "true", "007", "1e3", "0x10", "0o17", "1_000", "2024-11-27", "12:30:45"),
    *("run#1", "a:b", ".5", "1.", "NaN", "last:2", "C:\\x", "é 语 料"),
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_the_flags_text(text: str, tmp_path: Path) -> None:
    found = read(tmp_path, f"output_dir: {text}  # a comment\n")
    (setting,) = found.settings
    assert (setting.name, setting.value, setting.line) == ("output_dir", text, 1)
    assert isinstance(setting.value, Typed) and found.problems == []


def test_yaml_itself_would_change_most_of_them() -> None:
    changed = [text for text in TEXTS if yaml.safe_load(f"a: {text}")["a"] != text]
    assert len(changed) >= 10


def test_sections_lists_and_nulls(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "\ufeff# ours\n"
        "num-epochs: 2\n"
        "--lr: 1e-4\n"
        "grammar_dataset:\n"
        "  train_split: 'a#b.csv'\n"
        "target_modules:\n  - q_proj\n  - v_proj\n"
        "report_to: []\n"
        "tokenizer_name: null\n"
        'data_root: ""\n'
        "data_cache:\n",
    )
    assert found.problems == []
    assert [(each.name, each.value) for each in found.settings] == [
        ("num_epochs", "2"),
        ("lr", "1e-4"),
        ("grammar_dataset.train_split", "a#b.csv"),
        ("target_modules", ["q_proj", "v_proj"]),
        ("report_to", []),
        ("tokenizer_name", None),
        ("data_root", ""),
        ("data_cache", ""),
    ]
    given_empty, forgotten = found.settings[-2:]
    assert not isinstance(given_empty.value, Typed) and isinstance(forgotten.value, Typed)


BOMB = "a: &a [x]\n" + "".join(f"b{i}: [*a, *a]\n" for i in range(9))


@pytest.mark.parametrize(
    ("content", "what", "why"),
    [
        ("", "has no settings", "it is empty"),
        ("# nothing\n", "has no settings", "comments alone"),
        ("- a\n", "line 1: a list instead of settings", ""),
        ("hello\n", "line 1: a text instead of settings", ""),
        ("lr: 1\n\tseed: 2\n", "line 2: this is not YAML", "'\\t'"),
        ("lr: 1\nlr: 2\n", "line 2: lr again", "line 1 has it too"),
        ("lora_config.r: 1\nlora_config:\n  r: 2\n", "line 3: lora_config.r again", "line 1"),
        ("lora_config:\n  a:\n    b: 1\n", "line 2: a section in the section lora_config", ""),
        ("r: [[1]]\n", "line 1: r has a list in its list", ""),
        ("? [a]\n: b\n", "line 1: a list or section stands for a name", ""),
        (BOMB, "line 1: an anchor (&a)", "not repeated"),
        ("lr: !!python/object/apply:os.system [id]\n", "line 1: a tag", "type"),
        ("lr: 1\n---\nlr: 2\n", "line 2: a second document", ""),
        ("lr: " + "[" * 5000, "line 1: lists or sections in each other", ""),
        ("lr: 1\0\n", "is not YAML", "U+0000"),
        (codecs.BOM_UTF16_LE + "lr: 1".encode("utf-16-le"), "is not UTF-8", ""),
        ("output_dir: 输出文件夹\n".encode("gbk"), "is not UTF-8", ""),
        (b"#" * (settings_file.MOST_BYTES + 1), "is not a file of settings", "65,537 bytes"),
    ],
)
def test_what_is_no_file_of_settings(
    content: str | bytes, what: str, why: str, tmp_path: Path
) -> None:
    problem = read(tmp_path, content).problems[0]
    assert str(tmp_path / "mine.yaml") in problem.what and what in problem.what
    assert why in problem.why and problem.fix


def test_the_encoding_is_guessed_for_the_fix(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, "output_dir: 输出文件夹\n".encode("gbk")).problems
    assert "iconv -f gb" in problem.fix


def test_json_keeps_numbers_as_they_are_written(tmp_path: Path) -> None:
    text = '{"lr": 1e-04,\n "use_peft": true, "tokenizer_name": null,\n "lora_config": {"r": 8}}'
    found = read(tmp_path, text, "mine.json")
    assert [(each.name, each.value, each.line) for each in found.settings] == [
        ("lr", "1e-04", 1),
        ("use_peft", True, 2),
        ("tokenizer_name", None, 2),
        ("lora_config.r", "8", 3),
    ]
    assert found.problems == [] and not found.is_record


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("[1]", "is not JSON with settings"),
        ("{}", "is not JSON with settings"),
        ("{", "is not JSON with settings"),
        ("[" * 60000, "is not JSON with settings"),
        ('{"lr": 1,\n"lr": 2}', "line 2: lr again"),
        ('{"lr": {"a": {}}}', "line 1: lr.a is nested"),
    ],
)
def test_what_is_no_json_of_settings(content: str, what: str, tmp_path: Path) -> None:
    problem = read(tmp_path, content, "mine.json").problems[0]
    assert what in problem.what and problem.fix


def test_a_record_has_configurations_and_more(tmp_path: Path) -> None:
    content = {"train_config": {"lr": 1}, "versions": {"torch": "2"}, "data": {"train": "ab"}}
    found = read(tmp_path, json.dumps(content), "run_config.json")
    assert found.is_record and found.problems == []
    assert [each.name for each in found.settings] == ["train_config.lr"]


def test_what_a_word_may_name(tmp_path: Path) -> None:
    (missing,) = read_settings(str(tmp_path / "qlroa.yaml")).problems
    assert missing.fix == "did you mean --config qlora?"
    (folder,) = read_settings(str(tmp_path)).problems
    assert "is a folder" in folder.what and "--config FILE" in folder.fix
    (tmp_path / "run_config.json").write_text("{}")
    (run,) = read_settings(str(tmp_path)).problems
    assert run.fix == f"--config {tmp_path / 'run_config.json'}"
    assert read_settings("qlora").problems == []

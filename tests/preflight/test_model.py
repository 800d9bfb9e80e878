"""What a model's folder must contain; see test_bad_input for the reports."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import sentencepiece
from transformers import AutoTokenizer

from llama_recipes_local import cli, extras
from llama_recipes_local.datasets.token_ids import begun, text_ids
from llama_recipes_local.model_folders.auxiliary_files import copy_tokenizer
from llama_recipes_local.models import tokenizer_files
from llama_recipes_local.preflight import model
from llama_recipes_local.preflight.model_sizes import check_positions
from llama_recipes_local.run.resolution import resolve


def problems_of(folder: Path, **flags: object) -> list[str]:
    run = resolve({"model_name": str(folder), "context_length": 512} | flags)
    return [str(problem) for problem in model.check_model(run)]


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def write_pieces(folder: Path, **rules: object) -> None:
    """Leave a folder with a ``tokenizer.model`` as its only tokenizer: Llama 2's, but for rules."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    of_llama = {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    }
    words = ["The fox, a dog and the Hello of it below an instruction if x: y then"] * 9
    with (folder / "tokenizer.model").open("wb") as written:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(words),
            model_writer=written,
            vocab_size=320,
            hard_vocab_limit=False,
            minloglevel=2,
            **of_llama | rules,
        )


def test_a_complete_folder_has_no_problem(tiny_model: Path) -> None:
    assert problems_of(tiny_model) == []


def test_a_folder_in_shards_has_no_problem(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert problems_of(folder) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": []}'])
def test_an_invalid_index(content: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    (problem,) = problems_of(folder)
    assert f"{folder / 'model.safetensors.index.json'} is not an index of weights" in problem


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n"


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("content", [None, POINTER, b""], ids=["cut off", "git-lfs", "empty"])
def test_weights_that_were_not_copied_completely(
    content: bytes | None, sharded: bool, folder: Path
) -> None:
    path = folder / "model.safetensors"
    if sharded:
        path = path.rename(folder / "model-00001-of-00001.safetensors")
        index = {"weight_map": {"a": path.name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    (problem,) = problems_of(folder)
    pointer = content is POINTER
    state = "a pointer of Git LFS" if pointer else "not a complete safetensors file"
    assert problem.startswith(f"{path} is {state}")
    assert problem.endswith("copy the file again")
    assert (f"git -C {folder} lfs pull" in problem) == pointer


@pytest.mark.parametrize("config", ["null", "5", '"llama"', "\ufeff{}", ""])
def test_a_config_that_is_not_an_object(config: str, folder: Path) -> None:
    (folder / "config.json").write_text(config, "utf-8")
    (problem,) = problems_of(folder)
    assert f"{folder / 'config.json'} is not a JSON object" in problem


def test_the_context_may_fill_the_model_but_not_more(folder: Path) -> None:
    flags = {"model_name": str(folder)}
    assert check_positions(resolve(flags | {"context_length": 512})) == []
    (problem,) = check_positions(resolve(flags | {"context_length": 513}))
    assert "use --context_length 512 or less" in problem.fix


def test_padding_needs_no_context_length(folder: Path) -> None:
    assert problems_of(folder, context_length=4096, batching_strategy="padding") == []


def test_another_tokenizer_stands_in(folder: Path, tiny_model: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert problems_of(folder, tokenizer_name=str(tiny_model)) == []


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (set(), None),
        ({"sentencepiece"}, "sentencepiece"),
        ({"google.protobuf"}, "protobuf"),
        ({"sentencepiece", "google.protobuf"}, "sentencepiece protobuf"),
    ],
)
def test_a_sentencepiece_model_needs_its_packages(
    missing: set[str], expected: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pieces(folder)
    monkeypatch.setattr(
        tokenizer_files, "find_spec", lambda name: None if name in missing else True
    )
    problems = problems_of(folder)
    fixes = [extras.install(*expected.split())] if expected else []
    assert [problem.rpartition("fix: ")[2] for problem in problems] == fixes


@pytest.mark.parametrize(
    "rules",
    [
        {"model_type": "unigram"},
        {"byte_fallback": False},
        {"normalization_rule_name": "nmt_nfkc"},
        {"remove_extra_whitespaces": True},
        {"treat_whitespace_as_suffix": True},
    ],
    ids=lambda rules: str(*rules),
)
def test_pieces_that_transformers_reads_otherwise_are_refused(
    rules: dict[str, object], folder: Path
) -> None:
    write_pieces(folder, **rules)
    (problem,) = problems_of(folder)
    assert f"does not follow the rules of {folder / 'tokenizer.model'}" in problem
    assert "--tokenizer_name DIR" in problem


def test_pieces_alone_have_the_ids_of_sentencepiece(folder: Path, tmp_path: Path) -> None:
    write_pieces(folder)
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_tokenizer(folder, copy)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    mine = tokenizer_files.AutoTokenizer.from_pretrained(folder)
    plain = AutoTokenizer.from_pretrained(copy)
    for text in ("The dog", "if x:  y", "a\n\u00e9"):
        known = [pieces.bos_id(), *pieces.encode(text)]
        assert text_ids(mine, [begun(text, mine)]) == [known]
        assert plain(text)["input_ids"] == known
    # spaces before a text, and a text after a special token, as in chats
    assert text_ids(mine, ["  The dog"]) == [pieces.encode("  The dog")]
    begin, end = [pieces.bos_id()], [pieces.eos_id()]
    known = [*begin, *pieces.encode("The dog"), *end, *begin, *pieces.encode("if")]
    for each in (mine, plain):
        assert each("<s>The dog</s><s>if", add_special_tokens=False)["input_ids"] == known


def test_a_package_whose_parent_is_missing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not tokenizer_files._importable("no_such_package.part")


def test_an_adapter_to_continue_from_must_be_complete(folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").touch()
    flags = {"use_peft": True, "from_peft_checkpoint": str(adapter)}
    (problem,) = problems_of(folder, **flags)
    assert f"--from_peft_checkpoint {adapter} has no adapter_model.safetensors" in problem
    (adapter / "adapter_model.safetensors").touch()
    assert problems_of(folder, **flags) == []


def test_a_path_that_is_not_a_name_on_the_hub_lists_its_parent(tmp_path: Path) -> None:
    (tmp_path / "Llama-2-7b").mkdir()
    (problem,) = problems_of(tmp_path / "Llama-2-7")
    assert f"{tmp_path} holds Llama-2-7b" in problem and "Hub" not in problem


@pytest.mark.parametrize("name", ["", " ", "x" * 300, "a\0b"])
@pytest.mark.parametrize("command", ["evaluate", "finetune"])
def test_a_model_name_that_cannot_be_one_is_one_problem(
    command: str, name: str, grammar_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is named, so there is no second problem that none was."""
    words = ("--dataset", "grammar_dataset", "--data_root", grammar_data)
    with contextlib.suppress(SystemExit):
        assert cli.main([command, f"--model_name={name}", *map(str, words)]) == 2
    error = capfd.readouterr().err
    assert "1 problem found" in error and "no model was named" not in error

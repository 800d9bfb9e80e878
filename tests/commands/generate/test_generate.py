"""``generate`` completes a prompt in the template of training, and reports what a folder lacks."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from generate_command import generate, refused

from llama_recipes_local import cli
from llama_recipes_local.commands.generate import flags
from llama_recipes_local.datasets import grammar

SENTENCE = "She go to school yesterday."


def expected(base: Path, adapter: Path | None, prompt: str, tokens: int) -> str:
    """Greedy decoding, one full forward pass for each token."""
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    model: Any = LlamaForCausalLM.from_pretrained(base, local_files_only=True)
    if adapter:
        model = PeftModel.from_pretrained(model, str(adapter))
    model.eval()
    start = [tokenizer.bos_token_id, *tokenizer.encode(prompt, add_special_tokens=False)]
    ids = list(start)
    with torch.no_grad():
        while len(ids) < len(start) + tokens and ids[-1] != tokenizer.eos_token_id:
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return tokenizer.decode(ids[len(start) :], skip_special_tokens=True)


def test_only_the_completion_is_printed(
    adapter: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--adapter", adapter, "--prompt", SENTENCE, "--max_new_tokens", 8)
    completion = expected(tiny_model, adapter, SENTENCE, 8)
    assert completion != expected(tiny_model, None, SENTENCE, 8)
    assert generate(capsys, *words) == completion + "\n"


def test_a_data_set_gives_the_prompt_template_of_training(
    adapter: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = grammar.PROMPT.format(SENTENCE)
    assert prompt == f"Correct this to standard English: {SENTENCE}\n---\nCorrected: "
    words = ("--adapter", adapter, "--max_new_tokens", 8, "--dataset", "grammar_dataset")
    printed = generate(capsys, *words, "--prompt", SENTENCE)
    assert printed == expected(tiny_model, adapter, prompt, 8) + "\n"


def test_the_prompt_may_come_from_a_file_or_standard_input(
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--adapter", adapter, "--max_new_tokens", 8, "--dataset", "grammar_dataset")
    direct = generate(capsys, *words, "--prompt", SENTENCE)
    file = tmp_path / "prompt.txt"
    as_windows_saves_it = f"\ufeff{SENTENCE}\r\n"
    for text in (SENTENCE + "\n", as_windows_saves_it):
        file.write_bytes(text.encode())
        assert generate(capsys, *words, "--prompt_file", file) == direct
    monkeypatch.setattr("sys.stdin", io.StringIO(SENTENCE + "\n"))
    assert generate(capsys, *words) == direct


def test_a_terminal_is_told_that_a_prompt_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin = io.StringIO("Hi\n")
    monkeypatch.setattr("sys.stdin", stdin)
    assert flags._read_input() == "Hi" and capsys.readouterr().err == ""
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    assert flags._read_input() == ""
    assert "type the prompt" in capsys.readouterr().err


def test_a_blank_prompt_is_refused_before_anything_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a variable of the shell that is not set: a template would make a prompt of it."""
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    blank = tmp_path / "blank.txt"
    blank.write_text("\ufeff \n", "utf-8")
    for words in (["--prompt", ""], ["--prompt_file", str(blank)], []):
        assert cli.main(["generate", "--model_name", str(tmp_path / "none"), *words]) == 2
        said = capsys.readouterr().err
        assert "there is no prompt" in said and "fix: give one" in said


def test_sampling_depends_on_the_seed(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--adapter", adapter, "--prompt", SENTENCE, "--max_new_tokens", 12)
    greedy = generate(capsys, *words)
    drawn = [generate(capsys, *words, "--do_sample", "--seed", seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert greedy not in drawn
    narrow = generate(capsys, *words, "--do_sample", "--top_p", "1e-6")
    assert narrow == greedy


def test_the_base_model_may_have_moved(
    adapter: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "adapter"
    shutil.copytree(adapter, moved)
    path = moved / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"base_model_name_or_path": str(tmp_path / "gone")}))
    words = ("--adapter", moved, "--prompt", SENTENCE, "--max_new_tokens", 4)
    error = refused(capsys, *words)
    assert str(tmp_path / "gone") in error
    assert "--model_name" in error
    printed = generate(capsys, *words, "--model_name", tiny_model)
    assert printed == expected(tiny_model, adapter, SENTENCE, 4) + "\n"


def test_a_base_model_that_is_not_named_is_not_taken_from_the_working_directory(
    adapter: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nameless = shutil.copytree(adapter, tmp_path / "adapter")
    path = nameless / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": None}))
    monkeypatch.chdir(tiny_model)
    error = refused(capsys, "--adapter", nameless, "--prompt", SENTENCE)
    assert "does not name its base model" in error and "--model_name DIR" in error


def test_a_prompt_that_is_too_long_or_has_an_unknown_token_is_refused(
    adapter: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    file = tmp_path / "prompts.txt"
    file.write_text("She go.\n" + "She go. " * 600 + "\n")
    error = refused(capsys, "--adapter", adapter, "--prompts", file)
    assert f"line 2 of {file} has" in error and "has 512 positions" in error
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens([f"<{number}>" for number in range(len(tokenizer), 1002)])
    tokenizer.save_pretrained(tmp_path / "larger")
    words = ("--adapter", adapter, "--tokenizer_name", tmp_path / "larger", "--prompt")
    error = refused(capsys, *words, "She <1001> go.")
    assert "'<1001>', number 1,001" in error and "has 1,000 tokens" in error
    assert generate(capsys, *words, "She go.", "--max_new_tokens", 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_attention_heads": "four"}, "config.json cannot be read"),
        ({"model_type": "no_such_model"}, "is of type no_such_model"),
    ],
)
def test_a_configuration_that_transformers_cannot_read_is_refused(
    changes: dict[str, Any],
    said: str,
    adapter: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    error = refused(capsys, "--adapter", adapter, "--model_name", base, "--prompt", SENTENCE)
    assert str(base) in error and said in error
    assert str(next(iter(changes.values()))) in error


def test_an_index_of_weights_without_file_names_is_refused(
    adapter: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    (base / "model.safetensors").unlink()
    (base / "model.safetensors.index.json").write_text('{"weight_map": {"lm_head.weight": 3}}')
    error = refused(capsys, "--adapter", adapter, "--model_name", base, "--prompt", SENTENCE)
    assert f"{base} has only 0 of 1 weight files" in error


KINDS = ["lacking", "left over", "of another shape", "a setting", "a pattern"]


@pytest.mark.parametrize("wrong", KINDS)
def test_an_incompatible_adapter_is_refused(
    wrong: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PEFT would initialise missing tensors at random, and ignore unknown ones."""
    from safetensors.torch import load_file, save_file

    damaged = shutil.copytree(adapter, tmp_path / "adapter")
    path = damaged / "adapter_model.safetensors"
    tensors = load_file(path)
    name = min(tensors)
    if wrong == "lacking":
        del tensors[name]
    elif wrong == "left over":
        name = name.replace("q_proj", "o_proj")
        tensors[name] = tensors[min(tensors)].clone()
    elif wrong == "of another shape":
        tensors[name] = tensors[name][:, :-1].contiguous()
    else:
        config = damaged / "adapter_config.json"
        setting = {"rank_pattern": None} if wrong == "a setting" else {"target_modules": "((("}
        name = "NoneType" if wrong == "a setting" else "unterminated"
        config.write_text(json.dumps(json.loads(config.read_text()) | setting))
    save_file(tensors, path)
    error = refused(capsys, "--adapter", damaged, "--prompt", SENTENCE)
    assert f"--adapter {damaged} does not match the base model" in error
    assert name.removesuffix(".weight") in error


@pytest.mark.parametrize("named", [False, True], ids=["base from the adapter", "base named"])
def test_a_folder_without_an_adapter_is_refused(
    named: bool, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("--model_name", tiny_model) if named else ()
    error = refused(capsys, "--adapter", tmp_path / "none", "--prompt", "x", *base)
    assert str(tmp_path / "none") in error
    (tmp_path / "notes.txt").touch()
    error = refused(capsys, "--adapter", tmp_path, "--prompt", "x", *base)
    assert "adapter_config.json" in error
    assert "notes.txt" in error


def test_a_pickled_adapter_is_not_read(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(adapter, folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    error = refused(capsys, "--adapter", folder, "--prompt", "x")
    assert "adapter_model.safetensors" in error


@pytest.mark.parametrize(
    "words",
    [("--temperature", 0.5), ("--top_p", 0.5), ("--top_k", 5), ("--num_return_sequences", 2)],
)
def test_sampling_options_without_sampling_are_refused(
    words: tuple[object, ...], adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, "--adapter", adapter, "--prompt", "x", *words)
    assert str(words[0]) in error
    assert "add --do_sample" in error


LIKELIEST = "for the likeliest token each time leave --temperature and --do_sample out"


@pytest.mark.parametrize(
    ("flag", "value", "wanted"),
    [
        ("--max_new_tokens", "0", "an integer of at least 1"),
        ("--max_new_tokens", "1.5", "an integer of at least 1"),
        ("--temperature", "0", f"a number above 0; {LIKELIEST}"),
        ("--top_p", "1.1", "a number above 0 and at most 1"),
        ("--top_p", "nan", "a number above 0 and at most 1"),
        ("--top_k", "-1", "an integer of at least 0"),
        ("--repetition_penalty", "0", "a number above 0"),
        ("--batch_size", "0", "an integer of at least 1"),
        ("--seed", f"{2**63}", f"an integer of at least {-(2**63)} and at most {2**63 - 1}"),
    ],
)
def test_an_impossible_number_is_refused(
    flag: str, value: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["generate", "--adapter", "x", "--prompt", "y", "--do_sample", flag, value])
    assert stopped.value.code == 2
    assert f"argument {flag}: '{value}' is not {wanted}\n" in capsys.readouterr().err


def test_a_missing_prompt_file_is_refused(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "none.txt"
    assert str(file) in refused(capsys, "--adapter", adapter, "--prompt_file", file)


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_prompt_in_another_encoding_is_refused(
    errors: str,
    adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Standard input is strict or not by the locale, and what is typed as a flag never is."""
    typed = "你好\n".encode("gbk")
    for words in ((), ("--chat", "--template", "llama2")):
        stdin = io.TextIOWrapper(io.BytesIO(typed), "utf-8", errors)
        monkeypatch.setattr("sys.stdin", stdin)
        assert "a prompt is not UTF-8" in refused(capsys, "--adapter", adapter, *words)
    prompt = typed.decode("utf-8", "surrogateescape")
    assert "a prompt is not UTF-8" in refused(capsys, "--adapter", adapter, "--prompt", prompt)

"""Which flags are known, and which values they take."""

import pytest

from llama_recipes_local.commands.sft.command_line import Flag, read_flags
from llama_recipes_local.commands.sft.flags import build, check_flags, parse


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        ("--lora_rr 4", "unknown flag --lora_rr", "did you mean --lora_r?"),
        ("--model_nam x", "unknown flag --model_nam", "did you mean --model_name?"),
        ("--lora_r", "--lora_r is not valid", "python sft.py --help"),
        ("--lora_r four", "--lora_r four is not valid", "python sft.py --help"),
        ("--bf16 maybe", "--bf16 maybe is not valid", "python sft.py --help"),
        ("--packing_strategy best", "--packing_strategy best is not valid", "python sft.py --help"),
        ("--learning_rate 1 2", "--learning_rate 1 2 is not valid", "python sft.py --help"),
    ],
)
def test_unknown_flags_and_invalid_values(words: str, what: str, fix: str) -> None:
    good, (problem,) = check_flags(read_flags(["--seed=1", *words.split()])[0])
    assert [flag.name for flag in good] == ["seed"]
    assert problem.what == what
    assert fix in problem.fix
    assert "sft.py:" not in problem.why


def test_flags_cannot_be_abbreviated() -> None:
    _, (problem,) = check_flags([Flag("per_device_train", ("4",))])
    assert problem.fix == "did you mean --per_device_train_batch_size?"


def test_values_are_parsed() -> None:
    words = "--bf16 --no_save_only_model --max_steps -1 --lora_target_modules q_proj v_proj"
    good, problems = check_flags(read_flags(words.split())[0])
    assert problems == []
    options = parse(good)
    assert options.bf16 is True
    assert options.save_only_model is False
    assert options.max_steps == -1
    assert options.lora_target_modules == ["q_proj", "v_proj"]


def test_defaults_that_differ_from_trls() -> None:
    _, training, _ = build([Flag("output_dir", ("out",)), Flag("use_cpu"), Flag("bf16", ("no",))])
    assert training.save_only_model is True
    assert training.logging_nan_inf_filter is False


def test_a_file_of_flags_next_to_the_script_is_not_read(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sft.args").write_text("--seed 7")
    monkeypatch.setattr("sys.argv", [str(tmp_path / "sft.py")])
    _, training, _ = build([Flag("output_dir", ("out",)), Flag("use_cpu"), Flag("bf16", ("no",))])
    assert training.seed == 42


@pytest.mark.parametrize("text", ["run#1", "2024_11_27", "1e3", "a,b", "模 型", "-x"])
def test_a_text_is_kept(text: str) -> None:
    words = [f"--output_dir={text}", f"--local_dataset.columns={text}"]
    good, problems = check_flags(read_flags(words)[0])
    assert problems == []
    options = parse(good)
    assert (options.output_dir, getattr(options, "local_dataset.columns")) == (text, text)


def test_a_word_for_nothing_is_no_path() -> None:
    _, (problem,) = check_flags(read_flags(["--output_dir=None"])[0])
    assert problem.what == "--output_dir None"
    good, problems = check_flags(read_flags(["--local_dataset.columns=None"])[0])
    assert problems == [] and getattr(parse(good), "local_dataset.columns") == "None"


@pytest.mark.parametrize("words", [["--output_dir="], ["--dataset_name", " "]])
def test_an_empty_value_is_refused(words: list[str]) -> None:
    good, (problem,) = check_flags(read_flags(words)[0])
    assert good == [] and problem.what.endswith("is empty")


def test_a_path_that_is_too_long_is_refused() -> None:
    good, (problem,) = check_flags([Flag("model_name_or_path", ("x" * 300,))])
    assert good == [] and "a name of 300 bytes" in problem.what

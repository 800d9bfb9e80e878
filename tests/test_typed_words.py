"""The text of a flag is the text that was typed, and its field's type says what it means."""

import itertools
import sys
from typing import Any

import fire
import pytest
from fire.decorators import SetParseFn

from llama_recipes_local import finetuning
from llama_recipes_local.configs import train_config, wandb_config
from llama_recipes_local.field_values import update_config
from llama_recipes_local.preflight.flags import check_flags
from llama_recipes_local.run.resolution import resolve
from llama_recipes_local.typed_words import Typed, read_words

TEXTS = [
    "run#1",
    "2024_11_27",
    "1e3",
    "007",
    "a,b",
    "[x]",
    "{a: 1}",
    "(1, 2)",
    "True",
    "None",
    "'quoted'",
    '"quoted"',
    "模型",
    "two words",
    " around ",
    "a=b",
    "-x",
    "--lr",
    "0x10",
    "1_000",
    "a\\b",
    "b'bytes'",
    "1+1",
    "-",
    "~x",
]

WORDS = ("True", "None")  # no paths without ./ before them


def typed(*words: str) -> dict[str, Any]:
    """The flags that ``finetuning.py`` hands on for a command line."""
    seen: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["finetuning.py", *words])
        patch.setattr(finetuning, "finetune", lambda arguments, flags: seen.append(flags))
        fire.Fire(finetuning.main)
    return seen[0]


@pytest.mark.parametrize("text", [text for text in TEXTS if text not in WORDS])
@pytest.mark.parametrize("flag", ["output_dir", "train_config.output_dir", "model_name"])
def test_a_text_is_kept(flag: str, text: str) -> None:
    usable, problems = check_flags(typed("--use_peft", f"--{flag}={text}", "--lr", "1e-4"))
    assert problems == []
    run = resolve(usable)
    assert getattr(run.train, flag.rpartition(".")[2]) == text
    assert (run.train.lr, run.train.use_peft) == (1e-4, True)


@pytest.mark.parametrize("text", WORDS)
@pytest.mark.parametrize("flag", ["output_dir", "train_config.output_dir", "model_name"])
def test_a_word_of_python_is_no_path(flag: str, text: str) -> None:
    _, (problem,) = check_flags(typed(f"--{flag}={text}"))
    assert problem.what == f"--{flag} {text}"


@pytest.mark.parametrize("text", [text for text in TEXTS if not text.startswith("-")])
def test_a_text_after_its_flag_is_kept(text: str) -> None:
    assert typed("--output_dir", text, "--use_peft") == {"output_dir": text, "use_peft": True}


def test_words_are_split_where_fire_splits_them() -> None:
    """fire's own reading, over all short command lines of these words."""

    @SetParseFn(str)
    def seen(*arguments: str, **flags: str) -> None:
        found.append((arguments, flags))

    found: list[tuple[tuple[str, ...], dict[str, str]]] = []
    words = ["--lr", "--a-b=c", "-x", "--c.d=", "text", "-1", "--d", "-s=1"]
    for line in itertools.product(words, repeat=3):
        fire.Fire(seen, command=list(line))
        arguments, flags = read_words(line)
        texts = {name: str(value) for name, value in flags.items()}
        assert (arguments, texts) == found.pop(), line


def test_a_flag_without_a_text_is_not_the_text_true() -> None:
    assert typed("--output_dir") == {"output_dir": True}
    assert typed("--output_dir", "True") == {"output_dir": "True"}
    (problem,) = check_flags(typed("--output_dir", "--use_peft"))[1]
    assert problem.what == "--output_dir has no value"


def test_a_lone_dash_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """fire would run what stands before it, and look at the rest afterwards."""
    monkeypatch.setattr(sys, "argv", ["finetuning.py", "--output_dir", "-", "--nothing", "1"])
    with pytest.raises(SystemExit) as stopped:
        fire.Fire(finetuning.main)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    for words in ("'-' stands on the command line", "--output_dir has no value", "--nothing"):
        assert words in said


def test_what_python_passes_is_not_compared_with_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "argv", ["finetuning.py", "--lr", "3"])
    monkeypatch.setattr(finetuning, "finetune", lambda *given: seen.append(given))
    finetuning.main(lr=1e-3, output_dir="True")
    assert seen == [((), {"lr": 1e-3, "output_dir": "True"})]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--use_peft"], True),
        (["--use_peft", "true"], True),
        (["--use_peft=False"], False),
        (["--use_peft", "false"], False),
        (["--nouse_peft"], False),
        (["--use_peft", "0"], False),
    ],
)
def test_switches(words: list[str], expected: bool) -> None:
    usable, problems = check_flags(typed(*words, "--seed=1"))
    assert problems == []
    assert resolve(usable).train.use_peft is expected


def test_no_before_a_flag_that_is_no_switch() -> None:
    usable, problems = check_flags(typed("--nolr", "--notes"))
    assert usable == {}
    assert [problem.what for problem in problems] == ["unknown flag --nolr", "--notes has no value"]


@pytest.mark.parametrize(
    ("flag", "text", "expected"),
    [
        ("lr", "1e-4", 1e-4),
        ("lr", "3", 3.0),
        ("seed", "9007199254740993", 2**53 + 1),
        ("seed", "-7", -7),
        ("num_epochs", "1e1", 10),
        ("tokenizer_name", "None", None),
        ("quantization", "None", None),
        ("quantization", "True", True),
        ("quantization", "4bit", "4bit"),
        ("report_to", "wandb, mlflow", ["wandb", "mlflow"]),
        ("report_to", "['wandb','mlflow']", ["wandb", "mlflow"]),
        ("report_to", "(wandb,)", ["wandb"]),
        ("report_to", "[]", []),
        ("report_to", "wandb", ["wandb"]),
    ],
)
def test_a_text_means_what_its_field_says(flag: str, text: str, expected: object) -> None:
    config = train_config()
    update_config(config, **{flag: Typed(text)})
    value = getattr(config, flag)
    assert value == expected and type(value) is type(expected)


def test_an_optional_text_takes_none_as_upstream_does() -> None:
    config = wandb_config()
    update_config(config, **{"wandb_config.mode": Typed("None"), "notes": Typed("2024_11")})
    assert (config.mode, config.notes) == (None, "2024_11")


@pytest.mark.parametrize("flag", ["tokenizer_name", "output_dir", "local_dataset.data_path", "lr"])
@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_text_is_refused(flag: str, text: str) -> None:
    usable, (problem,) = check_flags(typed(f"--{flag}={text}"))
    assert usable == {} and problem.what == f"--{flag} is empty"


def test_python_may_pass_an_empty_default() -> None:
    assert check_flags({"resume_from_checkpoint": "", "train_only": ""})[1] == []
    for flag in ("tokenizer_name", "local_dataset.data_path"):
        (problem,) = check_flags({flag: ""})[1]
        assert problem.what == f"--{flag} is empty"


@pytest.mark.parametrize(
    "flag", ["model_name", "tokenizer_name", "local_dataset.data_path", "resume_from_checkpoint"]
)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x" * 300, "a name of 300 bytes"),
        ("字" * 100, "a name of 300 bytes"),
        ("ab/" * 2000, "is a path of "),
    ],
)
def test_a_path_that_is_too_long_is_a_problem(flag: str, text: str, said: str) -> None:
    _, (problem,) = check_flags({flag: text})
    assert problem.what.startswith(f"--{flag} ") and said in problem.what


def test_a_long_text_that_is_no_path_is_taken() -> None:
    assert check_flags({"notes": "x" * 5000})[1] == []

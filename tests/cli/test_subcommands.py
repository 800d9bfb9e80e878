"""The console script: which commands it finds, what it refuses, and what it imports."""

import json
import re
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import _python, cli, commands
from llama_recipes_local.cli.tree import ELSEWHERE, ROOT, Command
from llama_recipes_local.errors import Problem, RecordError, TrainingError, UsageError


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["genrate"], "generate"),
        (["finetun", "--use_peft"], "finetune"),
        (["train", "--use_peft"], "finetune"),
        (["chat"], "generate --chat"),
        (["help"], "--help"),
        (["prepare", "gramar"], "grammar"),
        (["prepare", "standin"], "stand-in"),
        (["generate", "--adaptor", "x"], "--adapter"),
        (["generate", "--adapter", "x", "--max_new_token=3"], "--max_new_tokens"),
        (["generate", "--adapter", "x", "--dataset", "gramar_dataset"], "grammar_dataset"),
        (["prepare", "grammar", "--oot", "x"], "--out"),
        (["prepare", "stand-in", "--dta", "x"], "--data"),
    ],
)
def test_the_nearest_name_is_suggested(
    words: list[str], nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(words, capsys)
    assert f"did you mean {nearest}?" in said
    assert said.count("\n") == 2 and "--help` lists what it takes" in said


def test_other_programs_names_of_commands_lead_to_ours() -> None:
    assert not ELSEWHERE.keys() & ROOT.commands.keys()
    for named in ELSEWHERE.values():
        command = ROOT
        for word in named.split():
            command = command if word.startswith("--") else command.commands[word]


@pytest.mark.parametrize("words", [[], ["prepare"]])
def test_without_a_command_all_are_listed(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(words, capsys)
    group = ROOT.commands[words[0]] if words else ROOT
    assert all(f"  {name} " in said for name in group.commands)


def names_of(command: Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    own = [] if command.verbatim else [path]
    return own + [
        name for word, each in command.commands.items() for name in names_of(each, (*path, word))
    ]


@pytest.mark.parametrize("path", names_of(ROOT))
def test_help_fits_80_columns(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([*path, "--help"])
    usage, _, rest = capsys.readouterr().out.partition("\n\n")  # argparse breaks no [A | B]
    assert usage.startswith("usage: ") and rest
    assert [line for line in rest.splitlines() if len(line) > 80] == []


def test_an_unexpected_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(["generate", "--adapter", "x", "--prompt", "She", "go"], capsys)
    assert "unexpected argument 'go'" in error


def test_a_python_without_the_packages_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from llama_recipes_local.commands.recipes import flags

    def lacking(args: object) -> None:
        import no_such_package  # noqa: F401

    monkeypatch.setattr(flags, "run", lacking)
    with pytest.raises(ModuleNotFoundError):  # not one of those that all need
        cli.main(["recipes"])
    monkeypatch.setattr(_python, "NEEDED", ("no_such_package",))
    assert cli.main(["recipes"]) == 2
    said = capsys.readouterr().err
    assert f"{sys.executable} has no no_such_package" in said
    assert f"-m pip install {_python.ROOT}" in said


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        (["generate", "--peft_model", "x"], "--adapter"),
        (["merge", "--adapter", "x", "--output_dir", "y"], "--out"),
        (["evaluate", "--lora_path=x"], "--adapter"),
        (["export", "--model_path", "x"], "--model_name"),
    ],
)
def test_the_name_of_a_flag_in_other_programs_leads_to_ours(
    words: list[str], ours: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"here it is called {ours}\n" in refused(words, capsys)


def test_a_path_without_a_flag_leads_to_its_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert f"did you mean --adapter {tmp_path}?" in refused(["generate", str(tmp_path)], capsys)
    file = tmp_path / "questions.jsonl"
    file.write_text("{}")
    assert f"did you mean --prompts {file}?" in refused(["generate", str(file)], capsys)
    # a command without such a flag does not suggest it
    assert "--adapter" not in refused(["recipes", "x", str(tmp_path)], capsys)


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_the_models_flag_is_the_same_everywhere(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = import_module(f"llama_recipes_local.commands.{command}.flags")
    seen: list[Any] = []
    monkeypatch.setattr(flags, "run", seen.append)
    for flag in ("--model", "--model_name"):
        assert cli.main([command, flag, "x"]) == 0
    first, second = (str(vars(each) | getattr(each, "flags", {})) for each in seen)
    assert first == second and "'model_name'" in first


def test_two_names_of_the_model_are_not_mixed_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--model", "llama-2-7b", "--model_name", "llama-3-8b"]) == 2
    assert "unknown flag --model\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["check", "--jsn", "x", "--json"],
        ["plan", "--json", "--gpu_memory", "80", "--peft_model", "x"],
        ["evaluate", "--json", "--benchmark", "mmul"],
    ],
)
def test_a_wrong_command_line_is_json_too(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = cli.main(words)
    except SystemExit as stopped:  # argparse's own
        code = stopped.code
    said = capsys.readouterr()
    problems = json.loads(said.out)["problems"]
    assert code == 2 and all(each["what"] in said.err for each in problems)


def test_flags_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown flag --prom;" in refused(["generate", "--adapter", "x", "--prom", "y"], capsys)


def test_a_value_may_look_like_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    from llama_recipes_local.commands.generate import flags

    seen: list[Any] = []
    monkeypatch.setattr(flags, "run", seen.append)
    words = ["generate", "--adapter", "x", "--prompt", "- a list", "--seed", "-1"]
    assert cli.main(words) == 0
    assert (seen[0].prompt, seen[0].seed) == ("- a list", -1)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError([Problem("it is so", "for a reason", "fix it")]), 2),
        (RecordError("a record cannot be used"), 2),
        (TrainingError("the loss is not finite"), 1),
    ],
)
def test_an_error_is_reported_without_a_traceback(
    error: UsageError | TrainingError,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from llama_recipes_local.commands.prepare.grammar import flags

    def fail(_: Any) -> None:
        raise error

    monkeypatch.setattr(flags, "run", fail)
    assert cli.main(["prepare", "grammar"]) == code
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", f"{error}\n")


def test_warnings_that_no_user_can_fix_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    from llama_recipes_local.commands.prepare.grammar import flags

    def warn(_: Any) -> None:
        warnings.warn("`old` is deprecated", FutureWarning, stacklevel=1)
        warnings.warn("this concerns the user", UserWarning, stacklevel=1)

    monkeypatch.setattr(flags, "run", warn)
    assert cli.main(["prepare", "grammar"]) == 0
    assert [str(each.message) for each in recwarn] == ["this concerns the user"]


def test_finetune_reads_its_words_as_finetuning_py_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from llama_recipes_local import finetuning

    calls: list[Any] = []
    monkeypatch.setattr(finetuning, "finetune", lambda *given: calls.append(given))
    words = ["--lr=1e-4", "--grammar_dataset.train_split", "a b.csv", "run#1", "--help"]
    assert cli.main(["finetune", *words]) == 0
    flags = {"lr": "1e-4", "grammar_dataset.train_split": "a b.csv", "help": True}
    assert calls == [(("run#1",), flags)]


def handed_on(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a command that takes any flag of finetuning.py hands to its function."""
    module = import_module(f"llama_recipes_local.commands.{name}.command")
    calls: list[Any] = []
    monkeypatch.setattr(module, name, lambda *given, **flags: calls.append((given, flags)))
    assert cli.main([name, *words]) == 0
    return calls[0]


@pytest.mark.parametrize("text", ["run#1", "2024_11_27", "1e3", "a,b", "--x", "None", "模 型"])
def test_texts_stay_as_they_were_typed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"--model_name={text}", "--rows", "7", f"--png={text}", "--use_fast_kernels"]
    expected = {"rows": 7, "png": text, "model_name": text, "use_fast_kernels": True}
    assert handed_on("inspect", words, monkeypatch) == ((), expected)
    words = ["--max-examples=2", f"--out={text}", f"--local_dataset.data_path={text}"]
    (args,), _ = handed_on("evaluate", words, monkeypatch)
    assert (args.max_examples, args.out) == (2, text)
    assert args.flags == {"local_dataset.data_path": text}
    assert args.adapter is None and args.batch_size == 8


def test_compare_takes_two_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (args,), _ = handed_on("evaluate", ["--compare", "2024_1", "b", "c"], monkeypatch)
    assert (args.arguments, args.compare) == (("c",), [Path("2024_1"), Path("b")])
    assert "expected 2 arguments" in refused(["evaluate", "--compare", "a"], capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--adapter="],
        ["evaluate", "--out", ""],
        ["generate", "--adapter", "", "--prompt", "x"],
        ["generate", "--adapter", "x", "--system= "],
        ["merge", "--adapter=", "--out", "x"],
        ["merge", "--adapter", "x", "--out="],
        ["convert", "", "--out", "x"],
        ["convert", "x", "--out", "y", "--model="],
    ],
    ids=" ".join,
)
def test_an_empty_value_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "it is empty" in refused(words, capsys)


@pytest.mark.parametrize("name", ["x" * 300, "字" * 100, "ab/" * 2000])
@pytest.mark.parametrize("words", [["merge", "--out", "y", "--adapter"], ["convert", "--out"]])
def test_a_path_that_is_too_long_is_refused(
    words: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "bytes at most" in refused([*words, name], capsys)


def leaves(command: Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not command.commands:
        return [] if command.verbatim else [path]
    return [leaf for word, sub in command.commands.items() for leaf in leaves(sub, (*path, word))]


HELP = [(), ("prepare",), *leaves(ROOT)]


@pytest.mark.parametrize("path", HELP, ids=" ".join)
def test_help_imports_nothing_heavy(path: tuple[str, ...], environment: dict[str, str]) -> None:
    program = (
        "import sys\n"
        "from llama_recipes_local.cli import main\n"
        "try:\n"
        f"    main([*{path!r}, '--help'])\n"
        "except SystemExit as stopped:\n"
        "    assert stopped.code == 0, stopped.code\n"
        "print(*sorted({'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules)),"
        " file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: " + " ".join(("llama-recipes-local", *path)))
    assert done.stderr.split() == []


def test_running_the_package_is_running_the_script(
    environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "llama_recipes_local"]
    options: dict[str, Any] = {
        "env": environment,
        "cwd": tmp_path,
        "capture_output": True,
        "text": True,
    }
    listed = subprocess.run([*command, "--help"], **options)
    assert listed.returncode == 0
    assert all(word in listed.stdout for word in ROOT.commands)
    file = tmp_path / "file"
    file.touch()
    wrong = subprocess.run([*command, "prepare", "grammar", "--out", str(file)], **options)
    assert wrong.returncode == 2
    assert str(file) in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_new_command_is_a_package_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "shout_twice"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "flags.py").write_text(
        '"""Print a word in capitals."""\n'
        "def add_arguments(parser):\n"
        "    parser.add_argument('--word', required=True, help='what to print')\n"
        "def run(args):\n"
        "    print(args.word.upper())\n"
    )
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    monkeypatch.setitem(ROOT.commands, "shout-twice", Command("print a word in capitals"))
    assert cli.main(["shout-twice", "--word", "hello"]) == 0
    assert capsys.readouterr().out == "HELLO\n"
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = capsys.readouterr().out
    assert re.search("shout-twice +print a word in capitals", listed)
    assert "did you mean --word?" in refused(["shout-twice", "--wrod", "x"], capsys)
    assert "did you mean shout-twice?" in refused(["shout-twise"], capsys)

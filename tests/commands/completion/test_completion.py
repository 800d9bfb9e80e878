"""What bash, zsh and fish themselves offer once they have read the script, by their own engines."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llama_recipes_local.cli.tree import ROOT
from llama_recipes_local.commands.completion import completed_words
from llama_recipes_local.commands.completion.command import script
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.fields import LibraryType, facts, type_hints
from llama_recipes_local.preflight.help import help_text, listed_flags

CASES: dict[str, set[str]] = {
    "": {*ROOT.commands},
    "mer": {"merge"},
    "prepare ": {"grammar", "smollm2", "stand-in", "tokens"},
    "prepare tokens --data_": {"--data_root", "--data_cache"},
    "merge --dt": {"--dtype"},
    "merge --dtype ": {"bfloat16", "float16", "float32"},
    "merge --dtype=b": {"bfloat16"},
    "merge --adapter my": {"my rows.jsonl", "my_folder"},
    "merge --allow_other_base --use": {"--use_double_quant"},
    "finetune --dataset g": {"grammar_dataset", "guanaco_dataset"},
    "finetune --dataset my": {"my rows.jsonl", "my_folder"},
    "finetune --use_peft --grammar_dataset.tr": {"--grammar_dataset.train_split"},
    "finetune --config ql": {"qlora"},
    "finetune --attn_implementation e": {"eager"},
    "finetune --sharding_strategy NO": {"NO_SHARD"},
    "finetune --batch_size_training ": {"auto"},
    "finetune --lr ": set(),
    "evaluate --benchmark c": {"ceval", "cmmlu"},
    "what-to-bring --dataset samsum": {"samsum_dataset"},
    "export --dataset merge --ty": {"--type"},  # the name of a command as a value
    "check my": {"my rows.jsonl", "my_folder"},
    "recipes quanti": set(),
    "recipes top": {"top_layers"},
    "completion ": {"bash", "zsh", "fish"},
    "nosuch --mod": set(),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my rows.jsonl").touch()
    (tmp_path / "my_folder").mkdir()
    for shell in ("bash", "zsh", "fish"):
        (tmp_path / f"script.{shell}").write_text(script(shell), "utf-8")
    return tmp_path


def of_bash(lines: list[str], folder: Path) -> list[set[str]]:
    """Ask bash through readline, which splits a line into words as it does for a person."""
    setup = f"PS1= PS2=; source {folder}/script.bash; bind 'set completion-query-items 0'\n"
    setup += "bind 'set page-completions off'; bind 'set show-all-if-ambiguous on'\n"
    setup += 'show() { printf "hit:%s\\n" "${COMPREPLY[@]}"; }\n'
    setup += "ask() { _llama_recipes_local; show; }; complete -F ask llama-recipes-local\n"
    setup += "IFS=:\n"  # some set their own
    return answers(["bash", "--norc", "--noprofile", "-i"], setup, lines, folder)


def of_zsh(lines: list[str], folder: Path) -> list[set[str]]:
    setup = (
        f"autoload -Uz compinit; compinit -D -u; source {folder}/script.zsh\n"
        'compadd() { if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]]; then builtin compadd "$@"\n'
        'return; fi; local -a hits; builtin compadd -A hits "$@"; print -rl -- "hit:"${^hits} }\n'
        "setopt no_beep; bindkey '^I' complete-word; PS1= LISTMAX=0\n"
    )
    return answers(["zsh", "-f", "-i"], setup, lines, folder)


def of_fish(lines: list[str], folder: Path) -> list[set[str]]:
    asked = "\n".join(f"complete -C 'llama-recipes-local {line}'; echo END" for line in lines)
    said = subprocess.run(
        ["fish", "--no-config", "-c", f"source script.fish\n{asked}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(folder)},
    )
    assert said.stderr == ""
    found = [part.split("\n") for part in said.stdout.split("END\n")[:-1]]
    return [{word(each.split("\t")[0]) for each in part if each} for part in found]


def word(text: str) -> str:
    """Return an offered word without what a shell writes around it."""
    plain = text.replace("\\ ", " ").rstrip("/")
    return plain.partition("=")[2] if plain.startswith("--") and "=" in plain else plain


def answers(program: list[str], setup: str, lines: list[str], folder: Path) -> list[set[str]]:
    """Type lines and a tab into a shell's own terminal; return the words it prints after "hit:"."""
    child, terminal = pty.fork()
    if not child:
        os.chdir(folder)
        home = {"HOME": str(folder), "TERM": "dumb", "INPUTRC": "/dev/null"}
        os.execvpe(program[0], program, {**os.environ, **home})
    try:
        type_in(terminal, setup.replace("\n", "\r") + 'echo END""0\r', "END0")
        found = []
        for number, line in enumerate(lines, 1):
            keys = f'llama-recipes-local {line}\t\x01\x0becho END""{number}\r'
            said = type_in(terminal, keys, f"END{number}")
            found.append({word(each) for each in re.findall(r"hit:([^\r\n]+)", said)})
        return found
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)


def type_in(terminal: int, keys: str, end: str) -> str:
    os.write(terminal, keys.encode())
    said, until = b"", time.monotonic() + 600
    while end.encode() not in said:
        assert time.monotonic() < until, said
        if select.select([terminal], [], [], 1)[0]:
            said += os.read(terminal, 1 << 16)
    return said.decode("utf-8", "replace")


@pytest.mark.command
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_offers_what_can_follow(shell: str, folder: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    ask = {"bash": of_bash, "zsh": of_zsh, "fish": of_fish}[shell]
    found = dict(zip(CASES, ask([*CASES], folder), strict=True))
    assert found == CASES


def test_the_flags_are_those_of_help() -> None:
    found = [name for flag in completed_words.finetuning_flags() for name in flag.names]
    assert found == re.findall(r"^  (--\S+)", help_text(), re.MULTILINE)
    assert len(found) > 100


def test_choices_that_help_explains_are_the_ones_that_are_taken() -> None:
    """They are read from the text of such a field, because what declares them imports torch."""
    compared = []
    offered = {flag.names[0]: flag.value for flag in completed_words.finetuning_flags()}
    for _, config, texts, prefix in listed_flags():
        for name in texts:
            choices, value = facts(config)[name].choices, offered[f"--{prefix}{name}"]
            if choices and not isinstance(type_hints(config)[name], LibraryType):
                assert value is not None
                taken = {each for each in choices.values if isinstance(each, str) and each}
                taken -= {"bf16", "fp16", "fp32", "uint8"}  # other words, or no weights'
                compared.append(name)
                assert {*value.words} == taken, name
    assert {"attn_implementation", "resume_despite", "dataset", "peft_method"} <= {*compared}
    assert {*DATASETS} == {*offered["--dataset"].words}


@pytest.mark.command
def test_a_script_is_printed_at_once_and_alone(environment: dict[str, str]) -> None:
    program = (
        "import sys\n"
        "from llama_recipes_local.cli import main\n"
        "main(['completion', 'bash'])\n"
        "print(*{'torch', 'transformers', 'numpy', 'yaml'} & set(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == (script("bash"), "\n")

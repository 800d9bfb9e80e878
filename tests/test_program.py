"""How the program is called in this shell, and that messages call it so."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_recipes_local import program
from llama_recipes_local.cli.tree import ROOT

PACKAGE = Path(program.__file__).parent


@pytest.mark.parametrize("where", ["here", "on the path", "elsewhere", "nowhere"])
def test_the_program_is_this_pythons(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "here/.venv/bin" / program.SCRIPT
    script.parent.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
    other = tmp_path / "other"
    other.mkdir()
    (other / program.SCRIPT).touch(0o755)  # another environment's
    monkeypatch.setenv("PATH", str(script.parent if where == "on the path" else other))
    monkeypatch.chdir(tmp_path / "here" if where == "here" else other)
    if where != "nowhere":
        script.touch(0o755)
    expected = {
        "here": [f".venv/bin/{program.SCRIPT}"],
        "on the path": [program.SCRIPT],
        "elsewhere": [str(script)],
        "nowhere": [sys.executable, "-m", "llama_recipes_local"],
    }
    assert program.program() == expected[where]


def test_a_command_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "program", lambda: ["/my envs/bin/llama-recipes-local"])
    shown = "'/my envs/bin/llama-recipes-local' convert 'a b' --out DIR"
    assert program.command("convert", Path("a b"), "--out", "DIR") == shown


def test_no_message_names_the_program_that_may_not_be_on_the_path() -> None:
    called = [f"{program.SCRIPT} {name}" for name in ROOT.commands]
    else_where = {
        "bundling/installer.py": "after the line that puts it on the path",
        "cli/shared_flags.py": "help is read by who could call the program",
        "commands/completion/bash_script.py": "what a shell completes is on its path",
        "commands/completion/fish_script.py": "the same",
        "commands/completion/zsh_script.py": "the same",
        "commands/recipes/flags.py": "help is read by who could call the program",
        "configs/training.py": "what a field says is help",
        "commands/what_to_bring/command.py": "on the machine that things are brought to",
        "commands/what_to_bring/data_files.py": "the same",
        "commands/what_to_bring/model_files.py": "the same",
        "model_checkpointing/adapter_card.py": "a card goes to other machines",
    }
    found = [
        f"{path.name}: {text}"
        for path in PACKAGE.rglob("*.py")
        if "_vendor" not in path.parts and path.relative_to(PACKAGE).as_posix() not in else_where
        for text in texts(ast.parse(path.read_text("utf-8")))
        if any(each in text for each in called)
    ]
    assert found == []


def texts(tree: ast.Module) -> Iterator[str]:
    """Yield the texts of a module without its docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    bare = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node.value

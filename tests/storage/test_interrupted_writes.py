"""Every single file that a run or a command writes appears whole or not at all."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

import llama_recipes_local
from llama_recipes_local.commands.evaluate.results import Result
from llama_recipes_local.commands.prepare.grammar import command
from llama_recipes_local.commands.prepare.grammar.published_csv import published_csv
from llama_recipes_local.data.audit import save_audit
from llama_recipes_local.datasets import prompt_template
from llama_recipes_local.run import resolution
from llama_recipes_local.run.record import save_description
from llama_recipes_local.storage.hashing import FileHashes
from llama_recipes_local.storage.publishing import write_json, write_text
from llama_recipes_local.training.loggers import JsonLines


class HalfwayError(Exception):
    """Stands for whatever ends a write halfway."""


def write_csv(path: Path) -> None:
    with published_csv(path) as file:
        file.write("a,b\n")


def write_hashes(path: Path) -> None:
    hashed = path.with_name("hashed")
    hashed.write_text("content")
    os.utime(hashed, (0, 0))
    FileHashes(path).of([hashed])


def cut_metrics(path: Path) -> None:
    """Resume at step 1, so that the line of step 2 is removed."""
    logger = JsonLines(path.parent)
    path.write_text('{"step": 1}\n{"step": 2}\n')
    logger.resume(1, 0)
    logger.log("train", 3, {})


def write_sft_configuration(path: Path) -> None:
    from llama_recipes_local.commands.sft.trl_trainer import save_configuration

    @dataclass
    class Settings:
        value: int = 1

    training = SimpleNamespace(to_dict=dict)
    run: Any = SimpleNamespace(
        flags=(),
        parts=(),
        dataset=Settings(),
        local=Settings(),
        model=Settings(),
        training=training,
    )
    save_configuration(run, path)


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: write_text(path, "new"),
    "json": lambda path: write_json(path, {"new": True}),
    "run_config.json": lambda path: save_description(resolution.resolve({}), path),
    "audit.json": lambda path: save_audit({}, 0, path),
    prompt_template.PROMPT_TEMPLATE_FILE: lambda path: prompt_template.save_prompt_template(
        prompt_template.PromptTemplate("prompt", "{}"), path.parent
    ),
    "result.json": lambda path: Result({}, []).save(path),
    "sft_config.json": write_sft_configuration,
    "rows.csv": write_csv,
    "hashes.json": write_hashes,
    "metrics.jsonl": cut_metrics,
}


def fail(*args: object, **kwargs: object) -> NoReturn:
    raise HalfwayError


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("name", WRITERS)
def test_the_old_file_stays_whole(
    name: str, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_text("old")
    monkeypatch.setattr(os, moment, fail)
    with pytest.raises(HalfwayError):
        WRITERS[name](path)
    monkeypatch.undo()
    old = '{"step": 1}\n{"step": 2}\n' if name == "metrics.jsonl" else "old"
    assert path.read_text() == old
    assert not list(tmp_path.glob(".*"))
    WRITERS[name](path)
    assert path.read_text() != old
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_no_half_copy_of_the_grammar_data_is_left(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, moment, fail)
    with pytest.raises(HalfwayError):
        command.prepare_grammar(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_storage_imports_no_torch(environment: dict[str, str]) -> None:
    """The quick commands use it before anything heavy is imported."""
    script = """
import importlib, pkgutil, sys
from llama_recipes_local import storage
names = [module.name for module in pkgutil.iter_modules(storage.__path__)]
assert len(names) > 4, names
for name in names:
    importlib.import_module(f"{storage.__name__}.{name}")
print(sorted({"torch", "transformers", "numpy"} & set(sys.modules)))
"""
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert run.stdout == "[]\n", run.stderr


# Modules that write by themselves: into a draft that is published, a log that grows, or no file.
OWN_WRITES = {
    "bundling/bundle_making.py": "into the draft of a bundle",
    "checkpoints/files.py": "into the draft of a checkpoint",
    "commands/prepare/grammar/command.py": "into the draft that storage gives",
    "commands/prepare/grammar/published_csv.py": "into the draft that storage gives",
    "commands/prepare/smollm2/command.py": "into the draft of the model's folder",
    "commands/prepare/stand_in/command.py": "into the draft of the model's folder",
    "console.py": "to the null device",
    "data/cache.py": "into the draft of an entry",
    "datasets/tokens_folder.py": "into the draft of a folder of tokens",
    "gguf_files/modelfile.py": "into the draft of an export",
    "gguf_files/tokenizer_folder.py": "into the draft of a model's folder",
    "model_checkpointing/checkpoint_handler.py": "into the draft of a sharded model",
    "model_folders/save.py": "into the draft of a model's folder",
    "rehearsal/__main__.py": "into the folder of a rehearsal",
    "rehearsal/performance.py": "into the folder of a rehearsal",
    "rehearsal/script.py": "into the folder of a rehearsal",
    "rehearsal/small_model.py": "into the folder of a rehearsal",
    "reports/run_charts.py": "into the draft that storage gives",
    "training/loggers.py": "metrics.jsonl, a line at a time",
}


def writes(tree: ast.Module) -> bool:
    """Return whether a module writes a file by ``open``, ``write_text`` or ``write_bytes``."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        modes = [each.value for each in given if isinstance(each, ast.Constant)]
        if name == "open" and any(re.fullmatch("[wax]b?[+]?", str(mode)) for mode in modes):
            return True
        if name in ("write_text", "write_bytes") and isinstance(node.func, ast.Attribute):
            return True
    return False


def test_files_are_written_through_storage() -> None:
    package = Path(llama_recipes_local.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if not {"_vendor", "vendoring", "storage"} & set(path.relative_to(package).parts)
        and writes(ast.parse(path.read_bytes()))
    }
    assert found == set(OWN_WRITES)

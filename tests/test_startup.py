"""What is imported, and when: torch and its like take seconds, so a word comes before them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from llama_recipes_local.data.token_rows import SCHEMA, Chunk
from llama_recipes_local.extras import compiled_when_called

PROJECT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "numpy", "pandas")


def imported_by(code: str) -> set[str]:
    """Return which of the heavy packages are imported after some lines of Python."""
    code += f"\nimport sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split()) if done.stdout.split() else set()


@pytest.mark.command
def test_the_configurations_are_declared_without_torch() -> None:
    assert imported_by("import torch") >= {"torch"}
    code = """
from llama_recipes_local import configs
from llama_recipes_local.field_values import update_config
from llama_recipes_local.fields import defaults, descriptions, facts, field_names
configs.train_config(), configs.wandb_config()
for cls in (configs.fsdp_config, configs.quantization_config):
    defaults(cls), descriptions(cls), facts(cls), field_names(cls)
assert defaults(configs.fsdp_config)["sharding_strategy"] == "FULL_SHARD"
"""
    assert imported_by(code) == set()


@pytest.mark.command
def test_commands_and_help_import_little() -> None:
    code = """
import llama_recipes_local.cli, llama_recipes_local.finetuning
from importlib import import_module
from llama_recipes_local.cli.tree import ROOT
from llama_recipes_local.cli.parsing import Parser
for name, command in ROOT.commands.items():
    for path in [f"{name}.{each}" for each in command.commands] or [name]:
        module = import_module(f"llama_recipes_local.commands.{path}.flags".replace("-", "_"))
        if not command.verbatim:
            module.add_arguments(Parser())
from llama_recipes_local.preflight.help import help_text
assert "--peft_method" in help_text() and "--sharding_strategy (FULL_SHARD)" in help_text()
"""
    assert imported_by(code) == set()


@pytest.mark.command
def test_a_run_does_not_import_the_compiler() -> None:
    code = """
from llama_recipes_local.api.logged_run import import_run
import_run()
import bitsandbytes, sys, torch
print(*(name for name in ("torch", "torch._inductor.compile_fx") if name in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "torch"


def test_functions_are_compiled_at_their_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile_now(function: Callable[..., int], **options: bool) -> Callable[..., int]:
        compiled.append((function.__name__, options))
        return lambda *args: function(*args) + 100

    monkeypatch.setattr(torch, "compile", compile_now)
    with compiled_when_called():

        @torch.compile(dynamic=True)
        def twice(number: int) -> int:
            """Double it."""
            return 2 * number

        plain = torch.compile(max)  # no function of Python's
    assert torch.compile is compile_now
    assert compiled == [("max", {})]
    assert plain(1, 2) == 102
    assert (twice.__name__, twice.__doc__) == ("twice", "Double it.")
    assert [twice(2), twice(3)] == [104, 106]
    assert compiled == [("max", {}), ("twice", {"dynamic": True})]


@pytest.mark.command
def test_cached_tokens_are_read_without_pandas(tmp_path: Path) -> None:
    with pa.ipc.new_file(tmp_path / "rows.arrow", SCHEMA) as writer:
        writer.write_batch(Chunk.of([[1, 2]], [[1, 2]]).batch())
    code = f"""
from pathlib import Path
from llama_recipes_local.data.token_rows import TokenRows
rows = TokenRows.open(Path({str(tmp_path / "rows.arrow")!r}))
assert len(rows.digests) == len(rows.lengths) == 1
"""
    found = imported_by(code)
    assert "torch" in found
    assert "pandas" not in found

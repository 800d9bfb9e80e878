"""What is imported, and when: torch and its like take seconds, so a word comes before them."""

import contextlib
import gc
import importlib.metadata
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from transformers import models
from transformers.utils import import_utils

from llama_recipes_local import _interrupt
from llama_recipes_local.api.quick_imports import (
    compiled_when_called,
    ended_by_ctrl_c,
    imported_when_called,
    list_models_once,
    packages_looked_up_once,
    without_collector,
)
from llama_recipes_local.data.token_rows import SCHEMA, Chunk
from llama_recipes_local.extras import distributions_of

PROJECT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "numpy", "pandas")
NOT_FOR_A_RUN = {
    "torch._inductor.compile_fx": "torch's compiler: nothing is compiled that is not called",
    "scipy": "a loss of vision models takes one function of it",
    "sklearn": "speculative decoding takes one function of it",
    "datasets": "read for folders that it saved alone",
    "matplotlib": "charts are written as SVG, and drawn with Pillow",
    "torch.utils.tensorboard": "imported for --report_to tensorboard",
    "wandb": "imported for --use_wandb",
    "trl": "imported by sft.py",
    "transformers.trainer": "the loop is this package's own",
}
"""What no run of LoRA needs, and why it does not."""


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
from llama_recipes_local.preflight.flags import configurations
configs.train_config(), configs.wandb_config()
declared = [known for cls in configurations().values() for known in facts(cls).values()]
assert len([known.choices.values for known in declared if known.choices]) > 20
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
def test_commands_import_torch_quickly() -> None:
    """Those that do not import it at all need no help."""
    folder = PROJECT / "llama_recipes_local" / "commands"
    plain = [
        ".".join(path.relative_to(PROJECT).with_name("command").parts)
        for path in folder.rglob("flags.py")
        if path.with_name("command.py").exists()
        and path.parent.name != "sft"  # which sft.py imports
        and "with quick_imports():" not in path.read_text("utf-8")
    ]
    assert len(plain) > 4
    assert imported_by(f"import {', '.join(plain)}") & {"torch", "transformers"} == set()


@pytest.mark.command
def test_a_folder_of_data_is_checked_without_torch(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n', "utf-8")
    code = f"""
from llama_recipes_local import cli
cli.main(["check", {str(tmp_path)!r}])
"""
    assert imported_by(code) & {"torch", "transformers"} == set()


@pytest.mark.command
def test_the_help_of_sft_imports_no_trainer() -> None:
    code = """
import sys
from llama_recipes_local.commands.sft.command import main
assert main(["--help"]) == 0
assert "trl" in sys.modules and "llama_recipes_local.commands.sft.trl_trainer" not in sys.modules
"""
    assert "torch" in imported_by(code)  # TRL's flags need it


def test_a_run_imports_no_package_that_it_does_not_need(
    tiny_model: Path, grammar_data: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    flags = {
        "model_name": str(tiny_model),
        "data_root": str(grammar_data),
        "dataset": "grammar_dataset",
        "use_peft": True,
        "num_workers_dataloader": 0,
        "context_length": 128,
        "max_train_step": 1,
        "output_dir": str(tmp_path / "run"),
    }
    needed = {"torch", "transformers.models.llama.modeling_llama", "bitsandbytes"}
    looked_for = needed | NOT_FOR_A_RUN.keys()
    code = f"""
import gc, sys
from llama_recipes_local import finetuning
from llama_recipes_local.api.logged_run import import_run
def show():
    print("IMPORTED", *({looked_for} & set(sys.modules)))
import_run()
assert gc.isenabled() and gc.get_freeze_count() > 100_000
assert not [each for each in sys.meta_path if "quick_imports" in type(each).__module__]
assert sys.modules["torch"].compile.__module__ == "torch"
show()
from transformers.utils.import_utils import create_import_structure_from_path as read
assert read.__name__ == "read_folder"
finetuning.main(**{flags})
show()
"""
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    shown = [line.split() for line in done.stdout.splitlines() if line.startswith("IMPORTED")]
    assert len(shown) == 2, done.stdout + done.stderr
    for _, *found in shown:
        assert {name: NOT_FOR_A_RUN[name] for name in NOT_FOR_A_RUN if name in found} == {}
        assert set(found) == needed


@pytest.mark.parametrize("fails_later", [True, False])
def test_ctrl_c_ends_imports_that_go_on_without_it(
    fails_later: bool,
) -> None:
    """torch's import of numpy does so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), ended_by_ctrl_c():
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            if fails_later:
                raise RecursionError
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with pytest.raises(ImportError), ended_by_ctrl_c():
            raise ImportError
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup has it
        with ended_by_ctrl_c():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("program", ["finetuning.py", "sft.py", "llama-recipes-local"])
def test_ctrl_c_before_a_command_begins_ends_it_in_a_line(
    program: str, environment: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / program
    script.write_text("import llama_recipes_local\nraise KeyboardInterrupt\n")
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.stderr == "\nstopped by Ctrl-C\n"
    assert done.returncode == -signal.SIGINT


def test_other_errors_and_other_programs_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(sys, "argv", ["mine.py"])
    _interrupt.end_in_a_line()
    assert sys.excepthook is sys.__excepthook__
    monkeypatch.setattr(sys, "argv", ["-m"])  # as of python -m llama_recipes_local
    _interrupt.end_in_a_line()
    sys.excepthook(ValueError, ValueError("no"), None)
    assert capsys.readouterr().err == "ValueError: no\n"


def test_a_large_package_is_imported_for_a_function_when_it_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("scipy", "scipy.optimize"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with imported_when_called():
        from scipy.optimize import linear_sum_assignment

        assert "scipy" not in sys.modules
    assert "scipy.optimize" not in sys.modules
    rows, columns = linear_sum_assignment(torch.tensor([[4.0, 1.0], [2.0, 0.0]]).numpy())
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


def test_another_function_of_a_large_package_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "scipy.optimize", raising=False)
    with imported_when_called():
        from scipy.optimize import minimize_scalar

        own = sys.modules["scipy.optimize"]
        assert minimize_scalar is own.minimize_scalar
    assert sys.modules["scipy.optimize"] is own


def test_transformers_is_told_which_package_has_a_module() -> None:
    by_python = importlib.metadata.packages_distributions
    with pytest.raises(KeyboardInterrupt), packages_looked_up_once():
        assert importlib.metadata.packages_distributions is distributions_of
        raise KeyboardInterrupt
    assert importlib.metadata.packages_distributions is by_python


def test_transformers_reads_the_files_of_its_models_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(models.__file__).parent
    plain = import_utils.define_import_structure(models.__file__)
    asked = []

    def read(path: Path) -> object:
        asked.append(path)
        return structure(path)

    structure = import_utils.create_import_structure_from_path
    monkeypatch.setattr(import_utils, "create_import_structure_from_path", read)
    monkeypatch.delitem(sys.modules, "transformers.models")
    list_models_once()
    by_file = import_utils.define_import_structure(models.__file__)
    by_folder = import_utils.define_import_structure(folder)  # type: ignore[arg-type] (as it does)
    assert {path for path in asked if path.name.startswith("models")} == {folder}
    assert by_file == by_folder == plain


def test_the_collector_is_off_while_a_run_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[str] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append("frozen"))
    with without_collector():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert frozen == []  # torch was there, and models may be
    monkeypatch.delitem(sys.modules, "torch")
    with pytest.raises(KeyboardInterrupt), without_collector():
        raise KeyboardInterrupt
    assert gc.isenabled()
    assert frozen == ["frozen"]
    gc.disable()
    try:
        with without_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


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

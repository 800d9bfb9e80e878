"""What is replaced in other libraries is there and used; where it is not, that is an error."""

import ast
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import peft
import pytest
from torch import nn

import llama_recipes_local
from llama_recipes_local import library_patches
from llama_recipes_local.adapters import llama_adapter, pissa, prefix
from llama_recipes_local.api.quick_imports import compiled_when_called, list_models_once
from llama_recipes_local.kernels import attention, frozen
from llama_recipes_local.library_patches import PATCHES, LibraryPatch, TargetMissingError
from llama_recipes_local.models import precision, quantization
from llama_recipes_local.optimization import optimizers
from llama_recipes_local.parallel import quantized
from llama_recipes_local.policies import offload

TARGETS = [pytest.param(patch, target, id=target) for patch in PATCHES for target in patch.targets]
USED = [
    pytest.param(patch, target, id=target)
    for patch in PATCHES
    for target, places in patch.targets.items()
    if places  # the others this package calls itself
]
MODEL: Any = nn.Linear(1, 1)
MODEL.is_loaded_in_4bit = True
PISSA_MODEL: Any = SimpleNamespace(
    active_peft_config=peft.LoraConfig(init_lora_weights="pissa"),
    modules=list,
    named_parameters=list,
)
# how each replacement is made
MADE: dict[str, Callable[[], Any]] = {
    library_patches.CAUSAL_MASK.name: attention.register,
    library_patches.ROTARY_FREQUENCIES.name: lambda: precision.keep_frequencies(MODEL),
    library_patches.DECODER_LAYER.name: lambda: frozen.install(MODEL),
    library_patches.CHECKPOINTED_LAYER.name: lambda: offload.offload_inputs(MODEL),
    library_patches.CPU_PACKING.name: lambda: quantization.keep_packing(MODEL),
    library_patches.SHARDED_4BIT.name: lambda: quantized.shard_as_words(MODEL),
    library_patches.BITSANDBYTES_OPTIMIZERS.name: lambda: optimizers._on_replicas(object),
    library_patches.LLAMA_ADAPTER.name: lambda: llama_adapter.install(MODEL),
    library_patches.PREFIX.name: lambda: prefix.install(MODEL),
    library_patches.PISSA.name: lambda: pissa.prepare(PISSA_MODEL),
    library_patches.COMPILED_FUNCTIONS.name: compiled_when_called().__enter__,
    library_patches.MODEL_LIST.name: lambda: before_models_are_imported(list_models_once),
}


def before_models_are_imported(call: Callable[[], None]) -> None:
    """Call a function as in a process that has not imported transformers' models."""
    with mock.patch.dict(sys.modules):
        del sys.modules["transformers.models"]
        call()


class Empty:
    """A class in whose place the library's is missing an attribute."""


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_the_installed_libraries_have_the_targets(patch: LibraryPatch) -> None:
    patch.check()


@pytest.mark.parametrize(("patch", "target"), TARGETS)
def test_a_missing_target_is_an_error(
    patch: LibraryPatch, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, path = target.partition(":")
    owner, _, _ = path.rpartition(".")
    if owner:
        monkeypatch.setattr(import_module(module), owner, Empty)
    else:
        monkeypatch.delattr(import_module(module), path)
    library = module.partition(".")[0]
    message = f"{target} is missing in {library} {version(library)}, so {patch.where} cannot"
    with pytest.raises(TargetMissingError, match=re.escape(message)):
        replace(patch, targets={target: patch.targets[target]}).check()


@pytest.mark.parametrize(("patch", "target"), USED)
def test_a_target_that_the_library_does_not_use_is_an_error(
    patch: LibraryPatch, target: str
) -> None:
    unused = replace(patch, targets={target: ("json", "no_such_module")})
    with pytest.raises(TargetMissingError, match="is not used by json or no_such_module in"):
        unused.check()


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_nothing_is_replaced_before_its_target_is_found(
    patch: LibraryPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: LibraryPatch) -> None:
        raise TargetMissingError(self.name)

    monkeypatch.setattr(LibraryPatch, "check", fail)
    with pytest.raises(TargetMissingError, match=re.escape(patch.name)):
        MADE[patch.name]()


def test_every_replacement_is_in_the_list() -> None:
    """That is each assignment to ``__class__``, and each to a name of another's module."""
    package = Path(llama_recipes_local.__file__).parent
    found = {
        ".".join(path.relative_to(package).with_suffix("").parts): number
        for path in package.rglob("*.py")
        if "_vendor" not in path.parts and (number := replacements(ast.parse(path.read_bytes())))
    }
    listed = Counter(patch.where for patch in PATCHES)
    assert {"kernels.attention", "models.precision", "adapters.prefix_tuned"} <= found.keys()
    assert {where: number for where, number in found.items() if number > listed[where]} == {}


@pytest.mark.parametrize(
    "line",
    ["m.x = f", "m.a.x = f", "setattr(m, 'x', f)", "vars(m)['x'] = f", "m.__dict__['x'] = f"],
)
def test_each_way_of_replacing_is_found(line: str) -> None:
    assert replacements(ast.parse(f"from transformers.models.llama import m\n{line}")) == 1
    assert replacements(ast.parse(f"from torch import m\n{line}")) == 1
    assert replacements(ast.parse(f"from llama_recipes_local import m\n{line}")) == 0


def replacements(tree: ast.Module) -> int:
    """Return how many names of other libraries' modules and classes a module assigns to."""
    foreign = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and is_foreign(str(node.module)):
            foreign |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            foreign |= {each.asname or each.name for each in node.names if is_foreign(each.name)}
    return sum(
        (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and (node.attr == "__class__" or root(node) in foreign)
        )
        or (
            isinstance(node, ast.Subscript)
            and isinstance(node.ctx, ast.Store)
            and root(node) in foreign
        )
        or (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "setattr"
            and root(node.args[0]) in foreign
        )
        for node in ast.walk(tree)
    )


def is_foreign(module: str) -> bool:
    return module.split(".")[0] in ("transformers", "peft", "torch", "bitsandbytes", "accelerate")


def root(node: ast.expr) -> str:
    """Return the name that an expression such as ``vars(name.x)["y"]`` starts from."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Call):
            node = node.args[0] if ast.unparse(node.func) == "vars" and node.args else node.func
        elif isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        else:
            return ""
    return node.id


def test_the_table_has_a_row_for_each() -> None:
    rows = library_patches.rows()
    assert [name for name, *_ in rows] == [patch.name for patch in PATCHES]
    assert all(text and "|" not in text for row in rows for text in row)

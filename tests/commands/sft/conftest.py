"""A clone of openassistant-guanaco's shape, and sft.py in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sft_guide import GUIDE, write_clone

pytest.importorskip("trl")

Sft = Callable[..., int]


@pytest.fixture
def work(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guide's folders: the working directory, with the model next to it."""
    folder = tmp_path / "peft-demo"
    write_clone(folder / "datasets" / "openassistant-guanaco")
    (tmp_path / "Llama-2-7b-hf").symlink_to(tiny_model)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def sft(work: Path) -> Sft:
    """Runs sft.py's ``main`` with the guide's model, data and output, and the given flags."""
    from llama_recipes_local.commands.sft.command import main

    return lambda *flags: main([*GUIDE[:6], *map(str, flags)])

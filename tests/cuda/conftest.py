"""What tests on a CUDA device share: a process as torchrun starts it."""

import pytest

from llama_recipes_local.kernels import labelled_rows


@pytest.fixture
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be the one process that torchrun has started; its store takes any port that is free."""
    names = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1}
    for name, value in {**names, "MASTER_ADDR": "localhost", "MASTER_PORT": 0}.items():
        monkeypatch.setenv(name, str(value))


@pytest.fixture(autouse=True)
def picked_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the last layer computed for labelled rows in small batches too."""
    monkeypatch.setattr(labelled_rows, "_MULTIPLE", 16)

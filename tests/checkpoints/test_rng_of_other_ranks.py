"""The RNG state of a run that is resumed on another number of ranks."""

from pathlib import Path

import pytest
import torch

from llama_recipes_local.checkpoints import layout, rng_state
from llama_recipes_local.storage.publishing import write_json
from llama_recipes_local.training.checkpointing import _load_rng_state


def test_on_another_number_of_ranks_it_is_seeded_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / layout.RANDOM / "rank-0.json"
    saved.parent.mkdir()
    torch.manual_seed(1)
    write_json(saved, rng_state.state_dict())
    torch.manual_seed(2)
    _load_rng_state(tmp_path, 1, seed=7)
    assert torch.initial_seed() == 1 and capsys.readouterr().out == ""
    _load_rng_state(tmp_path, 2, seed=7)
    assert torch.initial_seed() == 7
    assert (
        "saved on 2 rank(s), resumed on 1: same samples, new RNG state" in capsys.readouterr().out
    )

"""The error of a loss or gradient that is not finite, on the command line and in a script."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from llama_recipes_local.data.mixed_rows import MixedRows
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.finetuning import main
from llama_recipes_local.training.nonfinite import (
    NonFiniteError,
    NonFiniteReport,
    describe_suspects,
    raise_non_finite,
)

FLAGS = {
    "dataset": "grammar_dataset",
    "use_peft": True,
    "lora_dropout": 0.0,
    "context_length": 128,
    "max_train_step": 4,
    "max_eval_step": 1,
    "num_workers_dataloader": 0,
}


@pytest.fixture
def broken_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with a weight so large that its products overflow."""
    folder = tmp_path / "broken"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = 3e38
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_command_fails_with_one_message(
    broken_model: Path, grammar_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(
            model_name=str(broken_model),
            data_root=str(grammar_data),
            output_dir=str(tmp_path / "out"),
            run_validation=False,
            **FLAGS,
        )
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert "training stopped at step 1: the loss is not finite on rank 0" in said
    assert "rank 0, micro-batch 0, rows " in said
    assert "Correct this to standard English" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert (tmp_path / "out" / "metrics.jsonl").read_text() == ""


def test_flags_of_the_loop_reach_it(tiny_model: Path, grammar_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    main(
        model_name=str(tiny_model),
        data_root=str(grammar_data),
        output_dir=str(tmp_path),
        optimizer="paged_adamw",
        scheduler="cosine",
        warmup_steps=2,
        lr=0.01,
        eval_steps=2,
        **FLAGS,
    )
    steps = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in steps] == pytest.approx([0.005, 0.01, 0.01, 0.005])
    lines = (tmp_path / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 2, 4]
    assert (tmp_path / "adapter_model.safetensors").is_file()


ROW = {"input_ids": [3, 4], "labels": [-100, 4]}


class Rows:
    """A loader whose sampler deals rows 40 and 41, then 42."""

    class Sampler:
        def set_epoch(self, epoch: int) -> None:
            pass

        def __iter__(self) -> Any:
            return iter([[40, 41], [42]])

    batch_sampler = Sampler()
    dataset: ClassVar = {row: {"input_ids": [row, row]} for row in (40, 41, 42)}


class Tokens:
    def decode(self, ids: Any) -> str:
        return " ".join(str(int(token)) for token in ids)


def a_report(losses: list[float], bad_ranks: list[int]) -> NonFiniteReport:
    ids = [torch.full((1, 2), 7)] * len(losses)
    return NonFiniteReport(5, bad_ranks, losses, first_micro_batch=0, input_ids=ids)


def test_the_micro_batch_whose_loss_is_not_finite_is_named() -> None:
    assert describe_suspects(a_report([1.0, float("nan")], [0]), Rows(), Tokens()) == [
        "rank 0, micro-batch 1, row 42",
        "   row 42: '42 42'",
    ]


def test_all_micro_batches_are_named_for_a_gradient() -> None:
    lines = describe_suspects(a_report([1.0, 2.0], []), Rows(), Tokens())
    assert [line for line in lines if line.startswith("rank")] == [
        "rank 0, micro-batch 0, rows 40, 41",
        "rank 0, micro-batch 1, row 42",
    ]


def test_a_batch_of_unknown_rows_shows_how_it_begins() -> None:
    loader = [{"input_ids": torch.zeros(1, 2)}]
    assert describe_suspects(a_report([float("inf")], [0]), loader, Tokens()) == [
        "rank 0, micro-batch 0, rows unknown",
        "   '7 7'",
    ]


def test_a_row_of_a_mixture_is_named_with_its_source() -> None:
    parts = {name: TokenRows.from_samples([ROW]) for name in ("letters", "notes")}
    loader: Any = Rows()
    loader.dataset = MixedRows(parts, np.repeat([1, 0], 41))
    lines = describe_suspects(a_report([float("nan"), 1.0], [0]), loader, Tokens())
    assert lines == [
        "rank 0, micro-batch 0, rows 40, 41",
        "   row 40 of notes: '3 4'",
        "   row 41 of letters: '3 4'",
    ]


def test_the_error_says_which_weights_are_kept_and_how_to_fix_it() -> None:
    with pytest.raises(NonFiniteError) as error:
        raise_non_finite(a_report([float("nan")], [0]), Rows(), None)
    assert "the weights are those after step 4" in str(error.value)
    assert "fix: check these rows" in str(error.value)

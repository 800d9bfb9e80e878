"""``finetune`` on two ranks: in a user's script under torchrun, and started from one process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import InterruptedRun, UsageError, finetune
from llama_recipes_local.api import launching, rank_program
from llama_recipes_local.storage.publishing import write_json

pytestmark = pytest.mark.ranks
HELPER = Path(__file__).parents[1] / "helpers" / "called_ranks.py"


@pytest.fixture(scope="module")
def sharded(short_run: dict[str, Any]) -> dict[str, Any]:
    """The flags of the short run on two ranks."""
    plain = {name: str(v) if isinstance(v, Path) else v for name, v in short_run.items()}
    return plain | {"enable_fsdp": True}


@pytest.fixture(scope="module")
def ranks(
    sharded: dict[str, Any], environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What each rank of the script was returned."""
    folder = tmp_path_factory.mktemp("called-ranks")
    (folder / "flags.json").write_text(json.dumps(sharded))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", HELPER, folder / "flags.json", folder]
    done = subprocess.run(
        [*map(str, command)],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("╭─ done") == 2  # the first rank speaks
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_each_rank_has_the_result(ranks: list[dict[str, Any]]) -> None:
    first, second = ranks
    assert first == second
    assert len(first["losses"][0]) == 3
    assert first["before"] != first["after"]
    assert Path(first["adapter"], "adapter_model.safetensors").is_file()
    assert first["answer"]


def test_a_second_run_of_the_ranks_is_as_the_first(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["losses"][0] == ranks[0]["losses"][1]


def test_each_rank_raises_the_problems(ranks: list[dict[str, Any]]) -> None:
    refused = [rank["refused"] for rank in ranks]
    assert refused[0] == refused[1]
    assert "holds" in refused[0]


def test_ranks_are_started_from_one_process(
    sharded: dict[str, Any],
    ranks: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = finetune(**sharded, output_dir=tmp_path / "run", num_processes=2)
    assert [row["loss"] for row in result.metrics] == ranks[0]["losses"][0]
    assert (result.loss_before, result.loss_after) == (ranks[0]["before"], ranks[0]["after"])
    assert result.facts["trained"] == "tiny-llama, LoRA"
    assert capsys.readouterr().out.count("╭─ done") == 1


def test_what_a_started_rank_raises_is_raised_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / launching.FLAGS, {"flags": {"modle_name": "m", "lr": -1.0}})
    assert rank_program.be_rank(tmp_path) == 2
    error = launching._error(tmp_path, 2)
    assert isinstance(error, UsageError)
    assert error.problems[0].what == "unknown flag --modle_name"
    assert error.problems[0].fix == "did you mean --model_name?"

    def stop(**flags: object) -> None:
        raise InterruptedRun("stopped after step 1")

    monkeypatch.setattr(rank_program, "finetune", stop)
    assert rank_program.be_rank(tmp_path) == 75
    error = launching._error(tmp_path, 75)
    assert (type(error), str(error)) == (InterruptedRun, "stopped after step 1")


def test_ranks_that_could_write_nothing_are_reported(tmp_path: Path) -> None:
    assert "exit code 137" in str(launching._error(tmp_path, 137))


@pytest.mark.parametrize("number", [0, -1, "2", 1.5])
def test_what_is_no_number_of_processes(number: Any) -> None:
    with pytest.raises(UsageError, match="num_processes="):
        finetune(model_name="m", num_processes=number)


@pytest.mark.parametrize("more", [{}, {"enable_fsdp": False}, {"enable_fsdp": "false"}])
def test_ranks_that_would_train_copies_are_not_started(more: Any) -> None:
    with pytest.raises(UsageError, match="num_processes=2 without enable_fsdp") as refused:
        finetune(model_name="m", num_processes=2, **more)
    assert refused.value.problems[0].fix == "add enable_fsdp=True, or leave it out"


def test_a_rank_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    for name, value in (place | {"MASTER_PORT": "29500"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="this process is itself rank 0 of 2"):
        finetune(model_name="m", num_processes=2)
    assert os.environ["RANK"] == "0"

"""One run at a time writes into a folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llama_recipes_local.finetuning import main
from llama_recipes_local.storage.folder_lock import LockedError, locked

# holds the lock, with a forked worker that prints its process id
STAYS = """
import os, sys, time
from pathlib import Path
from llama_recipes_local.storage.folder_lock import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_another_process_is_kept_out_until_the_first_is_killed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    first = subprocess.Popen(
        [sys.executable, "-c", STAYS, str(folder)],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert first.stdout is not None
    try:
        worker = int(first.stdout.readline())
        with pytest.raises(LockedError, match="another run writes into"), locked(folder):
            pass
    finally:
        first.kill()
        first.wait()
        first.stdout.close()
    try:
        with locked(folder):
            assert not list(folder.iterdir())
    finally:
        os.kill(worker, signal.SIGKILL)  # it outlived its run, and held no lock


def test_a_second_run_in_the_same_folder_starts_nothing(
    tiny_model: Path, grammar_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(tmp_path), pytest.raises(SystemExit) as stopped:
        main(
            model_name=str(tiny_model),
            data_root=str(grammar_data),
            output_dir=str(tmp_path),
            dataset="grammar_dataset",
            use_peft=True,
            context_length=128,
            num_workers_dataloader=0,
        )
    assert stopped.value.code == 2
    assert f"--output_dir {tmp_path}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

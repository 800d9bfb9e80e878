"""Runs that their launcher restarts: torchrun after a crash, Slurm at its time limit."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import ROWS, STEPS, lines
from run_server import free_port
from torchrun import HELPERS

pytestmark = pytest.mark.ranks

PROJECT = Path(__file__).resolve().parents[2]
SECONDS = 600


def words(flags: dict[str, Any]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


def test_torchrun_restarts_ranks_that_resume(
    lora: dict[str, Any], environment: dict[str, str], tmp_path: Path
) -> None:
    output, logs = tmp_path / "output", tmp_path / "logs"
    script = HELPERS / "dying_rank.py"
    flags = lora | {
        "output_dir": output,
        "batch_size_training": ROWS // 2,
        "save_steps": 2,
        "resume_from_checkpoint": "auto",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", "--max-restarts", "1"]
    command += ["--log-dir", str(logs), "--redirects", "3", str(script), "--enable_fsdp"]
    launched = subprocess.run(
        [*command, *words(flags)],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    (again,) = logs.glob("*/attempt_1/0/stdout.log")
    errors = [path.read_text() for path in logs.glob("*/attempt_1/*/stderr.log")]
    assert launched.returncode == 0, errors
    (first,) = logs.glob("*/attempt_0/0/stdout.log")
    assert "starting from scratch" in first.read_text()
    assert "resumed at step 4" in again.read_text()
    assert [line["step"] for line in lines(output / "metrics.jsonl")] == list(range(1, STEPS + 1))


def fake(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def one_node_cluster(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of a job on a cluster of this host: what Slurm's commands do, and no more."""
    folder = tmp_path / "bin"
    folder.mkdir()
    # hands its signals on, as srun does, and ends as what it started
    fake(
        folder,
        "srun",
        'while [[ $1 == --* ]]; do shift; done; "$@" & task=$!\n'
        'trap "kill -USR1 $task" USR1\n'
        "while kill -0 $task 2>/dev/null; do wait $task && status=0 || status=$?; done\n"
        "exit $status",
    )
    record = tmp_path / "requeued"
    fake(folder, "scontrol", f'[[ $1 == requeue ]] && echo "$2" > {record} || echo 127.0.0.1')
    path = [str(folder), str(Path(sys.executable).parent), environment["PATH"]]
    return environment | {
        "PATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": "1",
        "SLURM_GPUS_ON_NODE": "2",
        "SLURM_JOB_ID": "123",
        "SLURM_JOB_NODELIST": "here",
        "SLURM_JOB_NUM_NODES": "1",
        "MASTER_PORT": str(free_port()),
    }


def test_the_slurm_script_saves_and_is_queued_again(
    lora: dict[str, Any], one_node_cluster: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    flags = lora | {"output_dir": output, "num_epochs": 500, "save_steps": 0, "max_eval_step": 1}
    log = tmp_path / "log"
    with log.open("w") as file:
        job = subprocess.Popen(
            ["bash", str(PROJECT / "llama_recipes_local/job_files/slurm.sh"), *words(flags)],
            cwd=PROJECT,
            env=one_node_cluster,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        metrics = output / "metrics.jsonl"
        deadline = time.monotonic() + SECONDS
        while not (metrics.exists() and len(lines(metrics)) > 3):
            assert job.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        job.send_signal(signal.SIGUSR1)  # as --signal=B:USR1@300 has it
        job.wait(SECONDS)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    assert (tmp_path / "requeued").read_text() == "123\n", log.read_text()
    assert job.returncode == 75, log.read_text()  # the run's own code, not torchrun's
    assert "Traceback" not in log.read_text()
    (checkpoint,) = output.glob("checkpoint-*")
    assert f"saved in {checkpoint}" in log.read_text()

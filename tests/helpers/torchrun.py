"""Runs a script on several ranks of this machine, with torchrun."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HELPERS = Path(__file__).parent
SECONDS = 600
LOGS = ("stdout.log", "stderr.log")


@dataclass(frozen=True)
class Launched:
    """The output and error streams of each rank."""

    out: list[str]
    err: list[str]


def run_ranks(
    script: Path, *arguments: object, ranks: int, env: dict[str, str], logs: Path
) -> Launched:
    """Run ``script`` on ``ranks`` ranks, each with one thread.

    Raises:
        AssertionError: if a rank fails or exceeds ``SECONDS``; with the output of all ranks.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(ranks), "--log-dir", str(logs), "--redirects", "3"]
    command += [str(script), *map(str, arguments)]
    # a session of its own, so that ranks that wait for each other can be killed together
    process = subprocess.Popen(
        command,
        env={**env, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        output = f"timed out after {SECONDS} seconds"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    (attempt,) = logs.glob("*/attempt_0")
    launched = Launched(
        *([(attempt / str(rank) / name).read_text() for rank in range(ranks)] for name in LOGS)
    )
    assert process.returncode == 0, "\n".join([output, *launched.out, *launched.err])
    return launched

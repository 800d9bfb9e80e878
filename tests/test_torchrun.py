"""torchrun as make starts it: the exit code of the ranks, and nothing after what they report."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from llama_recipes_local import torchrun

# says that it is there; when it gets a signal, saves for a while
RANK = """
import os, signal, sys, time
def stop(number, frame):
    signal.signal(number, signal.SIG_IGN)
    print("saved", file=sys.stderr, flush=True)
    time.sleep(0.3 * int(os.environ["RANK"]))
    os._exit(75)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
signal.pause()
"""


@pytest.mark.parametrize(
    ("codes", "code", "said"),
    [
        ([2, 2], 2, ""),
        ([2, -15], 2, ""),  # torchrun ended the second rank
        ([-2, -2], 130, ""),
        ([-9, 75], 137, "\nstopped: rank 0 was killed by SIGKILL, as the system does when memory "),
        ([-11, 75], 139, "\nstopped: rank 0 was killed by SIGSEGV\n"),
    ],
)
def test_what_ended_the_first_rank_is_the_exit_code(
    codes: list[int], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = {rank: ProcessFailure(rank, 1, each, "") for rank, each in enumerate(codes)}
    assert torchrun._code(ChildFailedError("finetuning.py", failures)) == code
    err = capsys.readouterr().err
    assert err.startswith(said) if said else not err


@pytest.mark.ranks
def test_a_signal_reaches_the_ranks_whose_code_is_its_own(
    environment: dict[str, str], tmp_path: Path
) -> None:
    script, log = tmp_path / "rank.py", tmp_path / "log"
    script.write_text(RANK)
    command = [sys.executable, "-m", "llama_recipes_local.torchrun", "--standalone"]
    command += ["--nproc_per_node", "2", str(script)]
    with log.open("w") as file:
        process = subprocess.Popen(
            command, env=environment | {"OMP_NUM_THREADS": "1"}, stdout=file, stderr=file
        )
    try:
        while log.read_text().count("ready") < 2:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 75, log.read_text()
    finally:
        process.kill()
    # two ranks may write at once, one's word before the other's line end
    assert "".join(log.read_text().split()) == "ready" * 2 + "saved" * 2


@pytest.mark.parametrize(
    ("words", "address"),
    [
        ([], "localhost"),
        (["--nnodes", "1"], "localhost"),
        (["--nnodes", "1", "--local_addr", "10.0.0.1"], "10.0.0.1"),
        (["--nnodes", "2"], None),
        (["--nnodes", "1:2"], None),
    ],
)
def test_one_host_is_not_looked_for_by_its_name(
    words: list[str], address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container without a network no name is known; torchrun waited for ten minutes."""
    started: list[str | None] = []
    monkeypatch.setattr(torchrun.run, "run", lambda given: started.append(given.local_addr))
    monkeypatch.setattr(torchrun.signal, "signal", lambda *given: None)
    monkeypatch.setattr(torchrun.logging, "disable", lambda level: None)
    monkeypatch.setattr(sys, "argv", ["torchrun", *words, "finetuning.py"])
    assert torchrun.main() == 0
    assert started == [address]

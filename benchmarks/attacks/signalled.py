"""Signals in each stage of a run, on one rank and on two, and real torchrun."""

import os
import signal
import subprocess
import time
from pathlib import Path

from forked_runs import wait

from attacks.lab import FINETUNE, PYTHON, ROOT, Found, Lab, processes_left, unclean, until_said

STAGES = ("", "label tokens", "validating", "first step", "after step 2", "after step 6")
"""What a run prints when it begins to tokenise, load, validate, train, and is near its end."""
SIGNALS = ("SIGTERM", "SIGINT", "SIGINT SIGINT", "SIGUSR1", "SIGHUP")
TOLD = {0, 2, 75, 130}  # exit codes of runs that ended as they should
BY_SIGNAL = {-signal.SIGTERM, -signal.SIGINT, -signal.SIGUSR1, -signal.SIGHUP}
OURS = [PYTHON, "-m", "llama_recipes_local.torchrun"]
PLAIN = [PYTHON, "-m", "torch.distributed.run"]


def on_one_rank(lab: Lab, found: Found) -> None:
    in_each_stage(lab, found, 1)


def on_two_ranks(lab: Lab, found: Found) -> None:
    in_each_stage(lab, found, 2)


def in_each_stage(lab: Lab, found: Found, ranks: int) -> None:
    """Send each signal in each stage; the run, started again, must end to the bit."""
    cases = [(names, stage) for names in SIGNALS for stage in STAGES]
    lab.random.shuffle(cases)
    first = lab.log if ranks == 1 else lab.folder / "log.0"
    for names, stage in cases[: lab.count(len(cases))]:
        with lab.output() as output:
            more = {} if stage else {"data_cache": f"{output}-cache"}  # else nothing is tokenised
            runs = lab.start(lab.flags(output, **more), ranks)
            until_said(runs[0], first, stage)
            time.sleep(0.3 * (not stage))
            for name in names.split():
                send(runs, name)
                time.sleep(0.1)
            codes = {wait(run, 30) for run in runs}
            wrong = unclean(lab.said()) or processes_left(runs)
            if codes - TOLD - BY_SIGNAL:
                wrong = wrong or f"exit codes {codes}"
            found.add(f"{names} at {stage!r}", wrong or lab.again(output, more, ranks), lab.said())


def send(runs: list[int], name: str) -> None:
    for run in runs:
        os.kill(run, signal.Signals[name])


def by_torchrun(lab: Lab, found: Found) -> None:
    """Stop or kill the launcher: its ranks must save, and end."""
    for launcher, name, code in (
        (OURS, "SIGTERM", 75),
        (OURS, "SIGINT", 75),
        (PLAIN, "SIGTERM", None),
        (PLAIN, "SIGKILL", None),
    ):
        with lab.output() as output:
            run = launch(lab, launcher, output)
            until_said(run.pid, lab.log, "after step 2")
            ranks = children(run.pid)
            run.send_signal(signal.Signals[name])
            ended = run.wait(60)
            wrong = "" if all(map(ends, ranks)) and ranks else f"of {ranks} some are left"
            if code is not None and ended != code:
                wrong = wrong or f"exit code {ended}"
            if not any(output.glob("checkpoint-*")):
                wrong = wrong or "nothing was saved"
            found.add(f"{launcher[2]} {name}", wrong, lab.said())


def launch(lab: Lab, launcher: list[str], output: Path) -> "subprocess.Popen[bytes]":
    """Start a long run on two ranks by a launcher."""
    words = [*launcher, "--standalone", "--nproc_per_node", "2", *FINETUNE[1:]]
    words += lab.words(output, enable_fsdp=True, max_train_step=100000, num_epochs=1000)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with lab.log.open("w") as log:
        return subprocess.Popen(
            words, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def children(process: int) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True)
    return [int(child) for child in listed.stdout.split()]


def ends(process: int, seconds: float = 15) -> bool:
    """Wait for a process that is not ours to end; return whether it has."""
    until = time.monotonic() + seconds
    while Path(f"/proc/{process}").exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True

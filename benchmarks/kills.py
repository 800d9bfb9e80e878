"""Kills runs at random moments, from tokenising to publishing, and runs each again to its end.

``python benchmarks/kills.py --model DIR --kills 100 --out kills.json``. A killed run must leave no
process; the next one, with the same command and ``--resume_from_checkpoint auto``, must start at
once and end with the same weights, to the bit, as a run that was not killed. Runs are forked from a
process that has imported everything, so that the moments are of the run and not of the imports.
"""

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from llama_recipes_local import finetuning

ROWS = 2_600  # more than are tokenised in one process
WEIGHTS = "adapter_model.safetensors"
STAGES = {
    "saving and publishing": "step 6/6",
    "training": "step 1/",
    "validating": "validating",
    "loading": "label tokens",
    "tokenising": "",
}
"""What a run's output ends with, from last to first: a stage has begun once it has its text."""


def fork(flags: dict[str, Any], log: Path) -> int:
    """Start a run in a process and session of its own; return its id."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code = 1
    try:
        finetuning.main(**flags)
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def left_over(session: int) -> list[int]:
    """Return the processes of a session that are still running."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(path.parent.name))
    return found


def stage_of(log: Path) -> str:
    """Return what a run was doing, by what it had printed."""
    text = log.read_text(errors="replace")
    return next(stage for stage, begins in STAGES.items() if begins in text)


def weights(output: Path) -> bytes:
    """Return the saved adapter, and that of the last checkpoint."""
    return (output / WEIGHTS).read_bytes() + (output / "checkpoint-6" / WEIGHTS).read_bytes()


def main() -> None:
    """Kill, run again, compare, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a small model")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for what was found")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    data = folder / "rows.jsonl"
    lines = (json.dumps({"prompt": f"Count to {n}.", "completion": f"{n}"}) for n in range(ROWS))
    data.write_text("\n".join(lines) + "\n", "utf-8")

    def flags(output: Path, **more: object) -> dict[str, Any]:
        return {
            "model_name": str(args.model),
            "dataset": "local_dataset",
            "local_dataset.data_path": str(data),
            "data_cache": f"{output}-cache",
            "output_dir": str(output),
            "use_peft": True,
            "context_length": 64,
            "batch_size_training": 2,
            "num_workers_dataloader": 0,
            "max_train_step": 6,
            "max_eval_step": 2,
            "eval_steps": 2,
            "save_steps": 1,
            "save_total_limit": 2,
            "resume_from_checkpoint": "auto",
            **more,
        }

    straight, log = folder / "straight", folder / "log"
    began = time.monotonic()
    _, status = os.waitpid(fork(flags(straight), log), 0)
    length = time.monotonic() - began
    assert status == 0, log.read_text()
    expected, moments = weights(straight), random.Random(args.seed)
    stages, problems, slowest = Counter[str](), [], 0.0
    for kill in range(args.kills):
        output = folder / "killed"
        asked = flags(output, async_save=kill % 2 == 1)
        run = fork(asked, log)
        time.sleep(moments.uniform(0, length))
        os.kill(run, signal.SIGKILL)
        os.waitpid(run, 0)
        stages[stage_of(log)] += 1
        if left := left_over(run):
            time.sleep(0.5)  # they are being killed
            left = left_over(run)
        if left:
            problems.append(f"kill {kill}: processes {left} are left")
        began = time.monotonic()
        _, status = os.waitpid(fork(asked, log), 0)
        slowest = max(slowest, time.monotonic() - began)
        if status or weights(output) != expected:
            problems.append(f"kill {kill}: {os.waitstatus_to_exitcode(status)}\n{log.read_text()}")
        elif drafts := [path.name for path in output.glob(".*")]:
            problems.append(f"kill {kill}: {drafts} are left")
        for path in (output, Path(f"{output}-cache")):
            shutil.rmtree(path, ignore_errors=True)
    found = {
        "kills": args.kills,
        "by stage": dict(stages),
        "to the bit, nothing left": args.kills - len(problems),
        "seconds of a run": round(length, 2),
        "slowest run after a kill, seconds": round(slowest, 2),
        "problems": problems,
    }
    text = json.dumps(found, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", "utf-8")
    shutil.rmtree(folder)
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()

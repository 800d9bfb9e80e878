"""Kills runs at random moments, from tokenising to publishing, and runs each again to its end.

``python benchmarks/kills.py --model DIR --kills 100 --out kills.json``. A killed run must leave no
process; the next one, with the same command and ``--resume_from_checkpoint auto``, must start at
once and end with the same weights, optimiser state, random numbers and losses, to the bit, as a run
that was not killed. Runs are forked from a process that has imported everything, so that the
moments are of the run and not of the imports.
"""

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from forked_runs import difference, flags_of, fork, left_over, result, wait

ROWS = 2_600  # more than are tokenised in one process
STAGES = {
    "saving and publishing": "step 6/6",
    "training": "first step",
    "validating": "validating",
    "loading": "label tokens",
    "tokenising": "",
}
"""What a run's output ends with, from last to first: a stage has begun once it has its text."""


def write_rows(path: Path, rows: int) -> Path:
    """Write a data file of prompts and completions."""
    lines = (json.dumps({"prompt": f"Count to {n}.", "completion": f"{n}"}) for n in range(rows))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def stage_of(log: Path) -> str:
    """Return what a run was doing, by what it had printed."""
    text = log.read_text(errors="replace")
    return next(stage for stage, begins in STAGES.items() if begins in text)


def measure(model: Path, kills: int, seed: int = 0) -> dict[str, Any]:
    """Kill, run again, compare; return what was found, ready for JSON."""
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    data = write_rows(folder / "rows.jsonl", ROWS)
    straight, log = folder / "straight", folder / "log"
    began = time.monotonic()
    code = wait(fork(flags_of(model, data, straight), log))
    length = time.monotonic() - began
    assert code == 0, log.read_text()
    expected, moments = result(straight), random.Random(seed)
    stages, problems, slowest = Counter[str](), [], 0.0
    for kill in range(kills):
        output = folder / "killed"
        asked = flags_of(model, data, output, async_save=kill % 2 == 1)
        run = fork(asked, log)
        time.sleep(moments.uniform(0, length))
        os.kill(run, signal.SIGKILL)
        os.waitpid(run, 0)
        stages[stage_of(log)] += 1
        if left := left_over(run):
            problems.append(f"kill {kill}: processes {left} are left")
        began = time.monotonic()
        code = wait(fork(asked, log))
        slowest = max(slowest, time.monotonic() - began)
        if code or (differs := difference(result(output), expected)):
            what = f"exit code {code}" if code else f"{differs} differ"
            problems.append(f"kill {kill}: {what}\n{log.read_text()}")
        elif drafts := [path.name for path in output.glob(".*")]:
            problems.append(f"kill {kill}: {drafts} are left")
        for path in (output, Path(f"{output}-cache")):
            shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(folder)
    return {
        "kills": kills,
        "by stage": dict(stages),
        "to the bit, nothing left": kills - len(problems),
        "seconds of a run": round(length, 2),
        "slowest run after a kill, seconds": round(slowest, 2),
        "problems": problems,
    }


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a small model")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for what was found")
    args = parser.parse_args()
    found = measure(args.model, args.kills, args.seed)
    text = json.dumps(found, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", "utf-8")
    raise SystemExit(bool(found["problems"]))


if __name__ == "__main__":
    main()

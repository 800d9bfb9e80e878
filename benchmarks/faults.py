"""Attacks runs in every way that has broken one, and counts what held: results/faults.json.

``python benchmarks/faults.py --model DIR --out FILE [--times 0.3] [--only PATTERN]``, on Linux, as
root for small disks and machines without a network. An attack has held if it ends in words and
with an exit code, without a traceback, a process that is left or a file that counts by half; and if
the run, started again, gives the same weights, to the bit. ``--times`` scales the counts of those
rows that have one.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from attacks import checkpoints, disks, hostile, interrupted, ranks, scale, signalled, surroundings
from attacks.lab import ROOT, Attack, Found, Lab

ROWS: dict[str, Attack] = {
    "kill -9 at random moments, tokenising to publishing, sync and async": interrupted.at_moments,
    "kill -9 at up to six random moments a run, eight kinds of runs": interrupted.again_and_again,
    "kill -9 at a chosen file operation, eight kinds of runs": interrupted.at_file_operations,
    "kill -9 of merge and evaluate at a chosen file operation": (
        interrupted.commands_at_file_operations
    ),
    "two ranks killed: both, rank 0, rank 1; three kinds of runs": interrupted.on_two_ranks,
    "real torchrun: TERM, Ctrl-C, kill -9": signalled.by_torchrun,
    "damaged checkpoints": checkpoints.damaged,
    "checkpoints changed and hashed again": checkpoints.hashed_again,
    "disk full, 1 and 2 ranks, sync and async": disks.full,
    "folders removed, moved, shared, read-only; files, links and folders in their place": (
        disks.folders
    ),
    "few files, small files, no locks, no TMPDIR, HOME or PATH": disks.limited,
    "signals in each stage, 1 rank": signalled.on_one_rank,
    "signals in each stage, 2 ranks": signalled.on_two_ranks,
    "a rank that hangs": ranks.that_hang,
    "a rank that fails: exception, EIO, exit, crash, memory, NaN": ranks.that_fail,
    "ranks that differ": ranks.that_differ,
    "environment": surroundings.environment,
    "flags": surroundings.flags,
    "model folders that do not fit": hostile.models,
    "code execution": hostile.code,
    "paths and links out of a folder": hostile.links,
    "terminal escapes": hostile.escapes,
    "scale": scale.data,
    "network: commands without one": surroundings.network,
    "broken input (fuzz)": surroundings.broken_input,
}
"""What is attacked, and by what."""


def main() -> None:
    """Run the rows that were asked for, and write what was found after each."""
    args = parse_arguments()
    rows = earlier_rows(args.out)
    lab = Lab(args.model.resolve(), args.times)
    for name in ROWS:
        if re.search(args.only, name):
            rows[name] = measure(name, lab)
            report(name, rows[name])
            if args.out:
                args.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n", "utf-8")
    lab.close()
    raise SystemExit(any(row["problems"] for row in rows.values()))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a small model")
    parser.add_argument("--times", type=float, default=1.0, help="of the counts of attacks")
    parser.add_argument("--only", default="", help="a pattern of rows' names")
    parser.add_argument("--out", type=Path, help="JSON file for what was found")
    return parser.parse_args()


def earlier_rows(out: Path | None) -> dict[str, Any]:
    """Return the rows of an earlier measurement, for they may be measured one after the other."""
    if out is None or not out.exists():
        return {}
    rows: dict[str, Any] = json.loads(out.read_text("utf-8"))["rows"]
    return rows


def measure(name: str, lab: Lab) -> dict[str, Any]:
    """Make the attacks of a row; return what was found, ready for JSON."""
    began, found = time.monotonic(), Found()
    try:
        ROWS[name](lab, found)
    except Exception as error:  # a row that cannot be run is no reason to lose the others
        found.add("the row", repr(error), lab.said())
    took = {"times": lab.times, "seconds": round(time.monotonic() - began)}
    return found.as_json() | took | about()


def about() -> dict[str, str]:
    """Return the machine, versions and commit that a row holds for."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    versions += f", transformers {transformers.__version__}"
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(words, capture_output=True, text=True).stdout.strip()
    return {"about": f"{os.cpu_count()} cores; {versions}", "commit": commit}


def report(name: str, row: dict[str, Any]) -> None:
    print(f"{name}: {row['held']} of {row['attacks']} held", flush=True)
    for problem in row["problems"][:3]:
        print(f"   {problem}", flush=True)


if __name__ == "__main__":
    main()

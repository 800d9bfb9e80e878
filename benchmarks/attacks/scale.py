"""Much of everything: files, folders, rows, nesting, lines of a record."""

import json
import os
import resource
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forked_runs import fork, wait

from attacks.lab import Found, Lab, unclean, unexpected

SECONDS = 60.0  # of CPU time that an attack may take
NUMBER = '{"prompt": ' + "9" * 5000 + ', "completion": "b"}'


def data(lab: Lab, found: Found) -> None:
    """Train on much data, and resume a run with a long record."""
    with lab.output() as output:
        shutil.copytree(lab.straight, output)
        shutil.rmtree(output / "checkpoint-6")
        log = output / "metrics.jsonl"
        line = log.read_text().splitlines()[0]
        log.write_text(f"{line}\nnull\n[]\n" + "\n".join([line] * 10_000) + "\n")
        check(lab, found, "10,000 lines of metrics", lab.flags(output), (0,))
    for name, (make, codes) in SOURCES.items():
        with lab.output() as output, lab.output("source") as source:
            source.mkdir()
            make(source)
            flags = lab.flags(output, **{"local_dataset.data_path": str(source)})
            check(lab, found, name, flags, codes)


def check(lab: Lab, found: Found, name: str, flags: dict[str, Any], codes: Sequence[int]) -> None:
    began = cpu_seconds()
    code = wait(fork(flags, lab.log), 10 * SECONDS)
    took = cpu_seconds() - began
    wrong = unclean(lab.said()) or unexpected(code, codes)
    if took > SECONDS:
        wrong = wrong or f"it took {took:.0f} s"
    found.add(name, wrong, lab.said())
    found.notes[f"{name}, seconds of CPU"] = round(took, 1)


def cpu_seconds() -> float:
    """Return what the processes that have ended took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(prompt: str = "a") -> str:
    return json.dumps({"prompt": prompt, "completion": "b"}) + "\n"


def nested_folders(source: Path) -> None:
    """Nest 1,200 folders, deeper than a path may be long, with a file in the last."""
    here = os.getcwd()
    os.chdir(source)
    for _ in range(1_200):
        os.mkdir("dddd")
        os.chdir("dddd")
    Path("rows.jsonl").write_text(row() * 50)
    os.chdir(here)


def many_files(source: Path) -> None:
    for number in range(20_000):
        (source / f"{number}.jsonl").write_text(row())


def one_file(text: Callable[[], str], source: Path) -> None:
    (source / "rows.jsonl").write_text(text())


def many_columns(source: Path) -> None:
    columns = {f"c{number}": "x" for number in range(20_000)}
    line = json.dumps({"prompt": "a", "completion": "b"} | columns) + "\n"
    (source / "rows.jsonl").write_text(line * 20)


def long_name(source: Path) -> None:
    (source / ("n" * 240 + ".jsonl")).write_text(row() * 50)


def from_text(text: Callable[[], str]) -> Callable[[Path], None]:
    return lambda source: one_file(text, source)


SOURCES: dict[str, tuple[Callable[[Path], None], Sequence[int]]] = {
    "1,200 nested folders": (nested_folders, (0, 2)),
    "20,000 files": (many_files, (0,)),
    "rows of 1 MB": (from_text(lambda: row("a " * 500_000) * 30), (0, 2)),
    "a row of 50 MB": (from_text(lambda: row() * 40 + row("a " * 25_000_000)), (0, 2)),
    "a row of 70 MB": (from_text(lambda: row() * 40 + row("a " * 35_000_000)), (2,)),
    "1,000,000 empty lines": (from_text(lambda: row() * 50 + "\n" * 1_000_000), (0,)),
    "300,000 rows": (from_text(lambda: row() * 300_000), (0,)),
    "nested JSON": (from_text(lambda: "[" * 100_000), (2,)),
    "a number of 5,000 digits": (from_text(lambda: row() * 40 + NUMBER), (0, 2)),
    "20,000 columns": (many_columns, (0,)),
    "a name of 246 bytes": (long_name, (0,)),
}
"""What makes a folder of data, and the exit codes that a run may end with, by name."""

"""Where runs are attacked: a folder with data, runs that nothing disturbed, and what was found."""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forked_runs import (
    difference,
    flags_of,
    fork,
    fork_command,
    fork_ranks,
    left_over,
    result,
    wait,
)
from kills import write_rows

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
FINETUNE = [PYTHON, str(ROOT / "finetuning.py")]
COMMANDS = [PYTHON, "-m", "llama_recipes_local"]
NO_FLAGS: Mapping[str, object] = {}
SAME_RESULT = ("async_save", "save_total_limit", "data_cache")
"""Flags that do not change what a run leaves."""


@dataclass
class Found:
    """What became of a row's attacks.

    Attributes:
        attacks: how many were made.
        problems: a text for each that broke something.
        notes: what else was measured, by name.
    """

    attacks: int = 0
    problems: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, problem: str, log: str = "") -> None:
        """Count an attack; ``problem`` is "" if it held."""
        self.attacks += 1
        if problem:
            self.problems.append(f"{name}: {problem}\n{log[-900:]}")

    def as_json(self) -> dict[str, Any]:
        held = self.attacks - len(self.problems)
        return {"attacks": self.attacks, "held": held, **self.notes, "problems": self.problems}


@dataclass(frozen=True)
class Undisturbed:
    """What a run leaves that nothing disturbed, and how many seconds it took."""

    result: dict[str, str]
    seconds: float


Attack = Callable[["Lab", Found], None]
"""A row: it attacks runs of the lab, and adds what it finds."""


class Lab:
    """A folder with data, runs that nothing disturbed, and runs that are attacked.

    Attributes:
        model: folder of a small model.
        folder: holds all else; removed by ``close``.
        data: the runs' data file.
        log: what a run prints; rank N prints to the file of this name with ``.N``.
        random: decides what is attacked, and when.
        straight: output of a LoRA run on one rank.
    """

    def __init__(self, model: Path, times: float = 1.0) -> None:
        self.model, self.times = model, times
        self.folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self.data = write_rows(self.folder / "rows.jsonl", 300)
        self.log = self.folder / "log"
        self.random = random.Random(0)
        self.straight = self.folder / "straight"
        assert self.run_ranks(self.flags(self.straight)) == [0], self.said()
        self._undisturbed: dict[str, Undisturbed] = {}

    def close(self) -> None:
        """Remove all that was written."""
        remove(self.folder)

    def count(self, whole: int) -> int:
        """Return how many of a row's attacks are made."""
        return max(1, round(whole * self.times))

    def flags(self, output: Path, **more: object) -> dict[str, Any]:
        """Return the flags of a run, with ``more`` or with others in their place."""
        cache = {"data_cache": str(self.folder / "cache")}
        return flags_of(self.model, self.data, output, **{**cache, **more})

    def words(self, output: Path, **more: object) -> list[str]:
        """Return the flags of a run as words of a command line."""
        pairs = self.flags(output, **more).items()
        return [word for name, value in pairs for word in (f"--{name}", str(value))]

    @contextmanager
    def output(self, name: str = "attacked") -> Iterator[Path]:
        """A run's output folder, removed afterwards; logs of the attack before go first."""
        output = self.folder / name
        for path in self.folder.glob("log*"):
            path.unlink()
        yield output
        for path in self.folder.glob(f"{name}*"):  # its cache and sharded model too
            remove(path)

    def start(self, flags: dict[str, Any], ranks: int = 1, **how: Any) -> list[int]:
        """Start a run, on several ranks with FSDP; return the processes, a rank each."""
        if ranks > 1:
            return fork_ranks(flags, self.log, ranks=ranks, **how)
        return [fork(flags, self.log, **how)]

    def run_ranks(self, flags: dict[str, Any], ranks: int = 1) -> list[int | None]:
        """Run to the end; return the ranks' exit codes, None for one that hangs."""
        return [wait(run) for run in self.start(flags, ranks)]

    def command(self, *words: object, **how: Any) -> int | None:
        """Run ``llama-recipes-local`` to its end, forked; return its exit code; None: it hangs."""
        return wait(fork_command(words, self.log, **how))

    def said(self) -> str:
        """Return what the last run printed, all ranks together."""
        return "".join(p.read_text(errors="replace") for p in sorted(self.folder.glob("log*")))

    def again(self, output: Path, more: Mapping[str, object] = NO_FLAGS, ranks: int = 1) -> str:
        """Run an attacked run again; return what is wrong with how that ends, "" if nothing.

        Args:
            output: its folder.
            more: the flags that it had beside those of every run.
            ranks: how many it had.
        """
        expected = self.undisturbed(more, ranks).result
        codes = self.run_ranks(self.flags(output, **more), ranks)
        if any(codes):
            return f"the next run ended with {codes}"
        if differs := difference(result(output), expected):
            return f"the next run gives another {differs}"
        drafts = [path.name for path in output.glob(".*")]
        return f"{drafts} are left" if drafts else ""

    def undisturbed(self, more: Mapping[str, object] = NO_FLAGS, ranks: int = 1) -> Undisturbed:
        """Return what such a run leaves that nothing disturbs, which is made when first asked."""
        asked = {name: value for name, value in more.items() if name not in SAME_RESULT}
        key = json.dumps([ranks, asked], sort_keys=True, default=str)
        if key not in self._undisturbed:
            with self.output("undisturbed") as output:
                began = time.monotonic()
                codes = self.run_ranks(self.flags(output, **asked), ranks)
                assert codes == [0] * ranks, self.said()
                took = time.monotonic() - began
                self._undisturbed[key] = Undisturbed(result(output), took)
        return self._undisturbed[key]

    def run(self, *words: object, seconds: float = 120, **env: str) -> tuple[int | None, str]:
        """Run a real command; return its exit code (None: it hangs) and what it printed."""
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | env
        try:
            ended = subprocess.run(
                [str(word) for word in words],
                env=environment,
                cwd=self.folder,
                timeout=seconds,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except subprocess.TimeoutExpired as error:
            return None, str(error.stdout)
        return ended.returncode, ended.stdout


def remove(path: Path) -> None:
    """Remove a file or a folder, however deep: ``shutil.rmtree`` recurses."""
    subprocess.run(["rm", "-rf", "--", path], check=True)


def change_json(path: Path, **values: object) -> None:
    """Change values of an object in a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


def unclean(said: str) -> str:
    """Return what a user should not see in what was printed, "" if nothing."""
    if "Traceback" in said:
        return "a traceback"
    bad = next((c for c in said if not (c in "\n\t\r" or c.isprintable())), "")
    return f"a control character {bad!r}" if bad else ""


def unexpected(code: int | None, expected: Sequence[int]) -> str:
    """Return what is wrong with an exit code, "" if nothing."""
    if code is None:
        return "it hangs"
    return "" if code in expected else f"exit code {code}"


def until_said(run: int, log: Path, text: str, seconds: float = 60) -> bool:
    """Wait until a run has printed a text; return whether it has before it ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if log.exists() and text in log.read_text(errors="replace"):
            return True
        if Path(f"/proc/{run}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        time.sleep(0.01)
    return False


def processes_left(runs: Sequence[int]) -> str:
    """Return which processes of ended runs are still there, in words; "" if none is."""
    left = [process for run in runs for process in left_over(run)]
    return f"processes {left} are left" if left else ""

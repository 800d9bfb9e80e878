"""Runs that are killed: at any moment, at a file operation, on some of their ranks, many times.

What each leaves must be usable: the same command again ends with the same weights, optimiser
state, random numbers and losses, to the bit, as a run that was not killed.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from forked_runs import difference, digest, wait
from kills import measure

from attacks.lab import Found, Lab, processes_left, unclean

KINDS: dict[str, dict[str, object]] = {
    "LoRA": {},
    "LoRA, async": {"async_save": True},
    "full, async": {"use_peft": False, "async_save": True},
    "padding, 2 workers": {"batching_strategy": "padding", "num_workers_dataloader": 2},
    "dropout, accumulation": {"lora_config.lora_dropout": 0.2, "gradient_accumulation_steps": 2},
    "stream": {"local_dataset.streaming": True},
    "one checkpoint": {"save_total_limit": 1},
    "full": {"use_peft": False},
}
"""Flags of the kinds of runs on one rank."""

KINDS_ON_RANKS: dict[str, dict[str, object]] = {
    "FSDP, LoRA": {},
    "FSDP, full, async": {"use_peft": False, "async_save": True},
    "DDP, padding": {"sharding_strategy": "NO_SHARD", "batching_strategy": "padding"},
}
"""Flags of the kinds of runs on two ranks."""

VARIES = re.compile(rb'"(seconds|[a-z_]*_per_second|made|date|time)":[^,}]*')
"""What differs between two results of the same command."""

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"}
"""Audit events of what changes a folder; ``open`` for writing does as well."""


def at_moments(lab: Lab, found: Found) -> None:
    """Kill at random moments from tokenising, by several processes, to publishing."""
    measured = measure(lab.model, lab.count(60), seed=1)
    found.attacks, found.problems = measured["kills"], measured["problems"]
    for name in ("by stage", "slowest run after a kill, seconds"):
        found.notes[name] = measured[name]


def again_and_again(lab: Lab, found: Found) -> None:
    """Kill runs of each kind at up to six random moments, each as it resumes."""
    kinds, kills = list(KINDS.items()), 0
    for number in range(lab.count(24)):
        name, more = kinds[number % len(kinds)]
        seconds = lab.undisturbed(more).seconds
        with lab.output() as output:
            for _ in range(lab.random.randrange(1, 7)):
                [run] = lab.start(lab.flags(output, **more))
                time.sleep(lab.random.uniform(0.1, 1.0) * seconds)
                kills += kill([run])
            wrong = processes_left([run]) or lab.again(output, more)
            found.add(name, wrong, lab.said())
    found.notes["kills"] = kills


def at_file_operations(lab: Lab, found: Found) -> None:
    """Kill at the Nth file that is opened for writing, renamed, removed or made; a third twice."""
    kinds, points = list(KINDS.items()), dict[str, int]()
    straight = sorted(path.name for path in lab.straight.glob("checkpoint-*"))
    for number in range(lab.count(150)):
        name, more = kinds[number % len(kinds)]
        if name not in points:
            points[name] = count_operations(lab, more)
        with lab.output() as output:
            at = [lab.random.randrange(1, points[name] + 1) for _ in range(1 + (number % 3 == 2))]
            for point in at:
                hook = partial(kill_at_operation, output, point)
                [run] = lab.start(lab.flags(output, **more), prepare=hook)
                wait(run)
            wrong = processes_left([run]) or lab.again(output, more)
            kept = sorted(path.name for path in output.glob("checkpoint-*"))
            if not wrong and kept != straight[-int(more.get("save_total_limit", 2)) :]:  # type: ignore[call-overload]
                wrong = f"{kept} are kept"
            found.add(f"{name}, operations {at}", wrong, lab.said())
    found.notes["operations in a run"] = points


def on_two_ranks(lab: Lab, found: Found) -> None:
    """Kill both ranks, rank 0 or rank 1; half of the runs a second time as they resume."""
    kinds, kills, slowest = list(KINDS_ON_RANKS.items()), 0, 0.0
    for number in range(lab.count(30)):
        name, more = kinds[number % len(kinds)]
        whom = ((0, 1), (0,), (1,))[number // len(kinds) % 3]
        seconds = lab.undisturbed(more, ranks=2).seconds
        with lab.output() as output:
            wrong = ""
            for _ in range(1 + number % 2):
                runs = lab.start(lab.flags(output, **more), ranks=2)
                time.sleep(lab.random.uniform(0.1, 1.0) * seconds)
                began = time.monotonic()
                kills += kill([runs[rank] for rank in whom], reap=False)
                codes = [wait(run, 60) for run in runs]
                slowest = max(slowest, time.monotonic() - began)
                wrong = wrong or unclean(lab.said()) or processes_left(runs)
                wrong = wrong or ("a rank hangs" if None in codes else "")
            wrong = wrong or lab.again(output, more, ranks=2)
            found.add(f"{name}, ranks {whom}", wrong, lab.said())
    found.notes["ranks killed"] = kills
    found.notes["slowest end after a kill, seconds"] = round(slowest, 1)


def commands_at_file_operations(lab: Lab, found: Found) -> None:
    """Kill ``merge`` and ``evaluate`` at a file operation: what is there then is whole."""
    adapter = ["--adapter", lab.straight]
    for words in (["merge", *adapter], ["evaluate", *adapter, "--metrics", "loss"]):
        with lab.output("made") as place:
            words += ["--out", place / "it"]
            expected = made(lab, words, place)
        with lab.output("made") as place:
            place.mkdir()
            tally = lab.folder / "tally"
            assert lab.command(*words, prepare=partial(tally_operations, place, tally)) == 0
        points = list(range(1, tally.stat().st_size + 1))
        tally.unlink()
        for point in lab.random.sample(points, min(lab.count(20), len(points))):
            with lab.output("made") as place:
                place.mkdir()
                code = lab.command(*words, prepare=partial(kill_at_operation, place, point))
                assert code == -signal.SIGKILL, lab.said()
                there = (place / "it").exists()
                whole = contents(place / "it") if there else made(lab, words, place)
                wrong = "" if whole == expected else f"{difference(whole, expected)} differs"
                drafts = [] if there else [path.name for path in place.glob(".*")]
                wrong = wrong or (f"{drafts} are left" if drafts else "")
                found.add(f"{words[0]}, operation {point}", wrong, lab.said())


def made(lab: Lab, words: Sequence[object], place: Path) -> dict[str, str]:
    """Return what a command makes in an empty folder."""
    place.mkdir(exist_ok=True)
    code = lab.command(*words)
    return contents(place / "it") if code == 0 else {"exit code": str(code)}


def contents(path: Path) -> dict[str, str]:
    """Return digests of a file, or of the files of a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return {each.name: digest(VARIES.sub(b"", each.read_bytes())) for each in files}


def kill(runs: Sequence[int], reap: bool = True) -> int:
    """Kill runs; return how many were still running."""
    running = 0
    for run in runs:
        state = Path(f"/proc/{run}/stat").read_text().rpartition(")")[2].split()[0]
        running += state != "Z"
        os.kill(run, signal.SIGKILL)
        if reap:
            os.waitpid(run, 0)
    return running


def count_operations(lab: Lab, more: dict[str, object]) -> int:
    """Return how many file operations a run of a kind does in its output folder."""
    tally = lab.folder / "tally"
    tally.unlink(missing_ok=True)
    with lab.output() as output:
        [run] = lab.start(
            lab.flags(output, **more), prepare=partial(tally_operations, output, tally)
        )
        assert wait(run) == 0, lab.said()
    return tally.stat().st_size


def tally_operations(output: Path, tally: Path) -> None:
    """Write a byte to ``tally`` for each file operation of this process, and its forks, from now.

    The file outlives a process that is killed.
    """
    descriptor = os.open(tally, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if is_operation(event, arguments, output):
            os.write(descriptor, b".")

    sys.addaudithook(hook)


def kill_at_operation(output: Path, last: int) -> None:
    """Kill this process before its file operation number ``last``."""
    calls = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        if is_operation(event, arguments, output):
            calls += 1
            if calls == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def is_operation(event: str, arguments: tuple[Any, ...], output: Path) -> bool:
    """Whether an audit event changes a file of a run's output."""
    changes = event in CHANGES
    if event == "open" and isinstance(arguments[1], str):
        changes = arguments[1][:1] in ("w", "a", "x")
    return changes and str(output) in str(arguments[0])

"""Disks that fill up, folders that go away or are something else, and what the system limits."""

import errno
import fcntl
import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from forked_runs import Prepare, fork, wait

from attacks.lab import FINETUNE, Found, Lab, unclean, unexpected, until_said


def full(lab: Lab, found: Found) -> None:
    """Run on disks of 2% to 110% of what a run needs, then with room."""
    used = sum(path.stat().st_size for path in lab.straight.rglob("*") if path.is_file())
    for number in range(lab.count(29)):
        ranks, size = 1 + number % 2, int(lab.random.uniform(0.02, 1.1) * used)
        more = {"async_save": number % 4 > 1}
        lab.undisturbed(more, ranks)
        with lab.output("disk") as place, disk(place, f"size={size}"):
            output = place / "out"
            codes = lab.run_ranks(lab.flags(output, **more), ranks)
            said = lab.said()
            wrong = unclean(said) or "".join(unexpected(code, (0, 1, 2)) for code in codes)
            named = "no space left|could not be written|bytes|are free"
            if any(codes) and not re.search(named, said):
                wrong = wrong or "the disk is not named"
            subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
            wrong = wrong or lab.again(output, more, ranks)
            found.add(f"{size} bytes, {ranks} rank(s)", wrong, said)


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """A small disk of its own."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def folders(lab: Lab, found: Found) -> None:
    """Take a run's folders away, put something else in their place, let two runs share one."""
    taken_away(lab, found)
    written = [path.name for path in lab.straight.iterdir() if path.is_file()]
    drafts = [".incomplete", ".checkpoint-1.incomplete", ".metrics.jsonl.incomplete"]
    for name in (*drafts, "checkpoint-1", *sorted(written)):
        for kind in ("file", "link", "folder"):
            in_its_place(lab, found, name, kind)
    shared(lab, found)
    read_only(lab, found)


def taken_away(lab: Lab, found: Found) -> None:
    attacks: dict[str, tuple[Callable[[Path], object], int]] = {
        "removed": (remove_at_once, 1),
        "moved": (lambda output: output.rename(f"{output}-moved"), 1),
        "metrics.jsonl removed": (lambda output: (output / "metrics.jsonl").unlink(), 0),
    }
    for name, (attack, code) in attacks.items():
        with lab.output() as output:
            [run] = lab.start(lab.flags(output, max_train_step=60))
            until_said(run, lab.log, "first step")
            attack(output)
            wrong = unexpected(wait(run), (code,)) or unclean(lab.said())
            if code == 0 and not (output / "metrics.jsonl").exists():
                wrong = wrong or "half of the record is gone"
            found.add(name, wrong, lab.said())


def remove_at_once(output: Path) -> None:
    """Remove a folder that a run is writing to: renamed first, so that none of it stays."""
    aside = output.rename(f"{output}-removed")
    shutil.rmtree(aside)


def in_its_place(lab: Lab, found: Found, name: str, kind: str) -> None:
    with lab.output() as output:
        output.mkdir()
        private = lab.folder / "private"
        private.write_text("mine")
        if kind == "file":
            (output / name).write_text("x")
        elif kind == "link":
            (output / name).symlink_to(private)
        else:
            (output / name).mkdir()
        [code] = lab.run_ranks(lab.flags(output))
        wrong = unclean(lab.said()) or unexpected(code, (0, 1, 2))
        if private.read_text() != "mine":
            wrong = wrong or "it wrote through the link"
        found.add(f"{name} is a {kind}", wrong, lab.said())


def shared(lab: Lab, found: Found) -> None:
    """Start a second run in a running one's folder, and four runs with one new cache."""
    with lab.output() as output:
        [run] = lab.start(lab.flags(output, max_train_step=400, num_epochs=9))
        until_said(run, lab.log, "first step")
        code, said = lab.run(*FINETUNE, *lab.words(output))
        os.kill(run, signal.SIGTERM)
        wait(run)
        found.add("two runs in one folder", unclean(said) or unexpected(code, (1, 2)), said)
    with lab.output("attacked") as output:
        more = {"data_cache": f"{output}-cache"}
        runs = [
            fork(lab.flags(Path(f"{output}-{n}"), **more), lab.folder / f"log.{n}")
            for n in range(4)
        ]
        codes = [wait(run) for run in runs]
        wrong = unclean(lab.said()) or "".join(unexpected(code, (0,)) for code in codes)
        found.add("four runs with one new cache", wrong, lab.said())


def read_only(lab: Lab, found: Found) -> None:
    """Give a run an output folder, a cache with the tokens and a model that it cannot write to."""
    with lab.output("disk") as place, disk(place, "size=64m"):
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        [code] = lab.run_ranks(lab.flags(place / "out"))
        found.add("output", unexpected(code, (2,)) or unclean(lab.said()), lab.said())
    with lab.output("disk") as place, lab.output() as output, disk(place, "size=64m"):
        lab.run_ranks(lab.flags(lab.folder / "attacked-first", data_cache=str(place)))
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        wrong = lab.again(output, {"data_cache": str(place)})
        found.add("cache with the tokens", wrong or unclean(lab.said()), lab.said())


def limited(lab: Lab, found: Found) -> None:
    """Run with few files, small files, no file locks, no temporary folder."""
    for name, (prepare, more, codes) in LIMITS.items():
        with lab.output() as output:
            own = {"data_cache": f"{output}-cache"}
            [run] = lab.start(lab.flags(output, **own, **more), prepare=prepare)
            wrong = unexpected(wait(run), codes) or unclean(lab.said())
            found.add(name, wrong, lab.said())


def limit(kind: int, most: int) -> Prepare:
    return lambda: resource.setrlimit(kind, (most, most))


def limit_memory() -> None:
    """Let this process have 40 MB more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit(resource.RLIMIT_AS, pages * resource.getpagesize() + 40 * 2**20)()


def set_variables(**values: str) -> Prepare:
    return lambda: os.environ.update(values)


def forbid_locks() -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    fcntl.flock = fcntl.lockf = refused


WORKERS: dict[str, object] = {"num_workers_dataloader": 4}
LIMITS: dict[str, tuple[Prepare, dict[str, object], Sequence[int]]] = {
    "24 files": (limit(resource.RLIMIT_NOFILE, 24), {}, (0, 1, 2)),
    "40 files, 4 workers": (limit(resource.RLIMIT_NOFILE, 40), WORKERS, (0, 1, 2)),
    "files of 20 kB": (limit(resource.RLIMIT_FSIZE, 20_000), {}, (1, 2)),
    "files of 400 bytes": (limit(resource.RLIMIT_FSIZE, 400), {}, (1, 2)),
    "40 MB of memory": (limit_memory, {}, (1, 2)),
    "no file locks": (forbid_locks, {}, (0,)),
    "no TMPDIR": (set_variables(TMPDIR="/nowhere"), {}, (0,)),
    "no HOME": (lambda: os.environ.__delitem__("HOME"), {}, (0,)),
    "read-only HOME": (set_variables(HOME="/proc"), {}, (0,)),
    "no PATH": (set_variables(PATH=""), {}, (0,)),
    "another locale": (set_variables(LC_ALL="C", LANG="xx", PYTHONUTF8="0"), {}, (0,)),
}
"""What a run's process does first, further flags, and the exit codes it may end with, by name."""

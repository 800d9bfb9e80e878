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
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from forked_runs import flags_of, fork, fork_ranks, left_over, wait, weights
from kills import measure, write_rows

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
FINETUNE = [PYTHON, str(ROOT / "finetuning.py")]
STAGES = ("", "label tokens", "validating", "first step", "after step 2", "after step 6")
"""What a run prints when it begins to tokenise, load, validate, train, and is near its end."""
SIGNALS = ("SIGTERM", "SIGINT", "SIGINT SIGINT", "SIGUSR1", "SIGHUP")
TOLD = {0, 2, 75, 130}  # exit codes of runs that ended as they should
BY_SIGNAL = {-signal.SIGTERM, -signal.SIGINT, -signal.SIGUSR1, -signal.SIGHUP}


@dataclass
class Found:
    """What became of a row's attacks."""

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


class Lab:
    """A folder with data, a run that nothing disturbed, and runs that are attacked."""

    def __init__(self, model: Path, times: float) -> None:
        self.model, self.times = model, times
        self.folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self.data = write_rows(self.folder / "rows.jsonl", 300)
        self.log = self.folder / "log"
        self.random = random.Random(0)
        self.straight = self.folder / "straight"
        began = time.monotonic()
        assert wait(fork(self.flags(self.straight), self.log)) == 0, self.said()
        self.length = time.monotonic() - began
        self.expected = weights(self.straight)

    def flags(self, output: Path, **more: object) -> dict[str, Any]:
        cache = {"data_cache": str(self.folder / "cache")}
        return flags_of(self.model, self.data, output, **{**cache, **more})

    def words(self, output: Path, **more: object) -> list[str]:
        return [
            word
            for name, value in self.flags(output, **more).items()
            for word in (f"--{name}", str(value))
        ]

    def count(self, whole: int) -> int:
        return max(1, round(whole * self.times))

    def said(self) -> str:
        return "".join(p.read_text(errors="replace") for p in sorted(self.folder.glob("log*")))

    @contextmanager
    def output(self, name: str = "attacked") -> Iterator[Path]:
        """A run's output folder, removed afterwards; logs of the attack before are removed too."""
        output = self.folder / name
        for path in self.folder.glob("log*"):
            path.unlink()
        yield output
        shutil.rmtree(output, ignore_errors=True)

    def again(
        self, flags: dict[str, Any], output: Path, ranks: int = 1, expected: bytes = b""
    ) -> str:
        """Run again with the same flags; return what is wrong with how that ends."""
        runs = fork_ranks(flags, self.log, ranks=ranks) if ranks > 1 else [fork(flags, self.log)]
        codes = [wait(run) for run in runs]
        if any(codes):
            return f"the next run ended with {codes}"
        if weights(output) != (expected or self.expected):
            return "the next run gives other weights"
        drafts = [path.name for path in output.glob(".*")]
        return f"{drafts} are left" if drafts else ""

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


def unclean(said: str) -> str:
    """Return what a user should not see in what was printed."""
    if "Traceback" in said:
        return "a traceback"
    bad = next((c for c in said if not (c in "\n\t\r" or c.isprintable())), "")
    return f"a control character {bad!r}" if bad else ""


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


def killed_at_moments(lab: Lab, found: Found) -> None:
    measured = measure(lab.model, lab.count(100), seed=1)
    found.attacks, found.problems = measured["kills"], measured["problems"]
    found.notes = {
        name: measured[name] for name in ("by stage", "slowest run after a kill, seconds")
    }


def killed_at_file_operations(lab: Lab, found: Found) -> None:
    """Kill at the Nth file that is opened to be written, renamed, removed or made a folder."""
    kept = sorted(path.name for path in lab.straight.glob("checkpoint-*"))

    def count(output: Path, last: int, tally: Path | None) -> None:
        calls = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal calls
            changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link")
            if event == "open" and isinstance(arguments[1], str):
                changes = arguments[1][:1] in ("w", "a", "x")
            if not changes or str(output) not in str(arguments[0]):
                return
            calls += 1
            if tally is not None:
                os.write(descriptor, b".")
            elif calls == last:
                os.kill(os.getpid(), signal.SIGKILL)

        descriptor = os.open(tally, os.O_WRONLY | os.O_CREAT) if tally is not None else -1
        sys.addaudithook(hook)

    with lab.output() as output:
        tally = lab.folder / "tally"
        wait(fork(lab.flags(output), lab.log, lambda: count(output, 0, tally)))
        points = tally.stat().st_size
    found.notes["points in a run"] = points
    for number in range(lab.count(60)):
        with lab.output() as output:
            flags = lab.flags(output, async_save=number % 3 == 2)
            point = lab.random.randrange(1, points + 1)
            wait(fork(flags, lab.log, partial(count, output, point, None)))
            wrong = lab.again(flags, output)
            left = sorted(path.name for path in output.glob("checkpoint-*"))
            if not wrong and left != kept:
                wrong = f"{left} are kept, not {kept}"
            found.add(f"operation {point}", wrong, lab.said())


def two_ranks_killed(lab: Lab, found: Found) -> None:
    with lab.output("straight-2") as output:
        flags = lab.flags(output)
        assert [wait(run) for run in fork_ranks(flags, lab.log)] == [0, 0], lab.said()
        expected = weights(output)
    for number in range(lab.count(20)):
        with lab.output() as output:
            flags = lab.flags(output, async_save=number % 2 == 1)
            runs = fork_ranks(flags, lab.log)
            time.sleep(lab.random.uniform(0, 1.5 * lab.length))
            whom = ((0, 1), (0,), (1,))[number % 3]
            for rank in whom:
                os.kill(runs[rank], signal.SIGKILL)
            began = time.monotonic()
            codes = [wait(run, 60) for run in runs]
            wrong = unclean(lab.said()) or ("a rank hangs" if None in codes else "")
            wrong = wrong or lab.again(flags, output, 2, expected)
            found.add(f"ranks {whom}, {time.monotonic() - began:.0f} s", wrong, lab.said())


def signalled(lab: Lab, found: Found, ranks: int = 1) -> None:
    cases = [(names, stage) for names in SIGNALS for stage in STAGES]
    lab.random.shuffle(cases)
    expected = b""
    if ranks > 1:
        with lab.output("straight-2") as output:
            assert [wait(run) for run in fork_ranks(lab.flags(output), lab.log)] == [0] * ranks
            expected = weights(output)
    for names, stage in cases[: lab.count(len(cases))]:
        with lab.output() as output:
            flags = lab.flags(
                output,
                data_cache=str(output) + "-cache" if not stage else str(lab.folder / "cache"),
            )
            runs = fork_ranks(flags, lab.log) if ranks > 1 else [fork(flags, lab.log)]
            first = lab.log if ranks == 1 else lab.folder / "log.0"
            until_said(runs[0], first, stage)
            time.sleep(0.3 * (not stage))
            for name in names.split():
                for run in runs:
                    os.kill(run, signal.Signals[name])
                time.sleep(0.1)
            codes = [wait(run, 30) for run in runs]
            wrong = unclean(lab.said())
            if set(codes) - TOLD - BY_SIGNAL:
                wrong = wrong or f"exit codes {codes}"
            if any(left := [left_over(run) for run in runs]):
                wrong = wrong or f"{left} are left"
            wrong = wrong or lab.again(flags, output, ranks, expected)
            found.add(f"{names} at {stage!r}", wrong, lab.said())
            shutil.rmtree(str(output) + "-cache", ignore_errors=True)


def real_torchrun(lab: Lab, found: Found) -> None:
    ours = [PYTHON, "-m", "llama_recipes_local.torchrun"]
    plain = [PYTHON, "-m", "torch.distributed.run"]
    for launcher, name, code in (
        (ours, "SIGTERM", 75),
        (plain, "SIGTERM", None),
        (plain, "SIGKILL", None),
    ):
        with lab.output() as output:
            words = [*launcher, "--standalone", "--nproc_per_node", "2", *FINETUNE[1:]]
            words += lab.words(output, enable_fsdp=True, max_train_step=100000, num_epochs=1000)
            environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            with lab.log.open("w") as log:
                run = subprocess.Popen(
                    words, stdout=log, stderr=log, env=environment, start_new_session=True
                )
            until_said(run.pid, lab.log, "after step 2")
            ranks = [
                int(each)
                for each in subprocess.run(
                    ["pgrep", "-P", str(run.pid)], capture_output=True, text=True
                ).stdout.split()
            ]
            run.send_signal(signal.Signals[name])
            ended = run.wait(60)
            until = time.monotonic() + 15
            while (
                alive := [rank for rank in ranks if Path(f"/proc/{rank}").exists()]
            ) and time.monotonic() < until:
                time.sleep(0.1)
            wrong = f"ranks {alive} are left" if alive else ""
            if code is not None and ended != code:
                wrong = wrong or f"exit code {ended}"
            if not any(output.glob("checkpoint-*")):
                wrong = wrong or "nothing was saved"
            found.add(f"{launcher[2]} {name}", wrong, lab.said())


def damaged(lab: Lab, found: Found) -> None:
    """Damage each file of the newest checkpoint; auto must pass over it, to the same bits."""

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[lab.random.randrange(len(data))] ^= 1 << lab.random.randrange(8)
        path.write_bytes(data)

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def zero(path: Path) -> None:
        path.write_bytes(bytes(path.stat().st_size))

    newest = lab.straight / "checkpoint-6"
    files = [str(p.relative_to(newest)) for p in newest.rglob("*") if p.is_file()]
    cases = [(name, harm) for name in files for harm in (flip, cut, zero, Path.unlink)]
    lab.random.shuffle(cases)
    for name, harm in cases[: lab.count(len(cases))]:
        with lab.output() as output:
            shutil.copytree(lab.straight, output)
            harm(output / "checkpoint-6" / name)
            wrong = lab.again(lab.flags(output), output)
            if "checkpoint-6 skipped" not in lab.said():
                wrong = wrong or "it was not passed over"
            found.add(f"{harm.__name__} {name}", wrong or unclean(lab.said()), lab.said())


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A small disk of its own."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def full_disk(lab: Lab, found: Found) -> None:
    used = sum(path.stat().st_size for path in lab.straight.rglob("*") if path.is_file())
    expected = {1: lab.expected}
    with lab.output("straight-2") as output:
        assert [wait(run) for run in fork_ranks(lab.flags(output), lab.log)] == [0, 0]
        expected[2] = weights(output)
    for number in range(lab.count(24)):
        ranks, size = 1 + number % 2, int(lab.random.uniform(0.02, 1.1) * used)
        with lab.output("disk") as place, disk(place, size):
            output = place / "out"
            flags = lab.flags(output, async_save=number % 4 > 1)
            runs = fork_ranks(flags, lab.log) if ranks > 1 else [fork(flags, lab.log)]
            codes = [wait(run) for run in runs]
            said = lab.said()
            wrong = unclean(said)
            if set(codes) - {0, 1, 2}:
                wrong = wrong or f"exit codes {codes}"
            if any(codes) and not re.search("no space left|could not be written|bytes", said):
                wrong = wrong or "the disk is not named"
            subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
            wrong = wrong or lab.again(flags, output, ranks, expected[ranks])
            found.add(f"{size} bytes, {ranks} rank(s)", wrong, said)


def folders(lab: Lab, found: Found) -> None:
    """Take a run's folders away, or put something else in their place."""

    def remove(output: Path) -> None:
        shutil.rmtree(output)

    def move(output: Path) -> None:
        output.rename(output.with_name("moved"))

    def forget(output: Path) -> None:
        (output / "metrics.jsonl").unlink()

    for attack, codes in ((remove, {1}), (move, {1}), (forget, {0})):
        with lab.output() as output:
            flags = lab.flags(output, max_train_step=60)
            run = fork(flags, lab.log)
            until_said(run, lab.log, "first step")
            attack(output)
            code = wait(run)
            lines = (output / "metrics.jsonl").exists()
            wrong = unclean(lab.said()) or ("" if code in codes else f"exit code {code}")
            if code == 0 and not lines:
                wrong = wrong or "half of the record is gone"
            found.add(attack.__name__, wrong, lab.said())
        for path in lab.folder.glob("moved*"):
            shutil.rmtree(path)
        for path in lab.folder.glob("attacked*"):
            shutil.rmtree(path)
    for name in (
        ".incomplete",
        ".checkpoint-1.incomplete",
        "metrics.jsonl",
        "checkpoint-1",
        "run_config.json",
    ):
        for kind in ("file", "link", "folder"):
            with lab.output() as output:
                output.mkdir()
                private = lab.folder / "private"
                private.write_text("mine")
                path = output / name
                if kind == "file":
                    path.write_text("x")
                elif kind == "link":
                    path.symlink_to(private)
                else:
                    path.mkdir()
                code = wait(fork(lab.flags(output), lab.log))
                wrong = unclean(lab.said()) or ("" if code in (0, 1, 2) else f"exit code {code}")
                if private.read_text() != "mine":
                    wrong = wrong or "it wrote through the link"
                found.add(f"{name} is a {kind}", wrong, lab.said())
    with lab.output() as output:
        run = fork(lab.flags(output, max_train_step=400, num_epochs=9), lab.log)
        until_said(run, lab.log, "first step")
        code, said = lab.run(*FINETUNE, *lab.words(output))
        wrong = "" if code == 1 or code == 2 else f"exit code {code}"
        os.kill(run, signal.SIGTERM)
        wait(run)
        found.add("two runs in one folder", unclean(said) or wrong, said)


def network(lab: Lab, found: Found) -> None:
    """Run the commands in a network of their own, whose interfaces count packets."""
    output = lab.straight
    cli = [PYTHON, "-m", "llama_recipes_local"]
    new, data = lab.folder / "offline", f"--local_dataset.data_path={lab.data}"
    dataset = ["--dataset", "local_dataset", data]
    commands: dict[str, list[Any]] = {
        "finetune": [*FINETUNE, *lab.words(new)],
        "generate": [
            *cli,
            "generate",
            "--adapter",
            output,
            "--prompt",
            "Count to 3.",
            "--max_new_tokens",
            "4",
        ],
        "inspect": [*cli, "inspect", "--model_name", lab.model, *dataset],
        "merge": [*cli, "merge", "--adapter", output, "--out", lab.folder / "merged"],
        "evaluate": [*cli, "evaluate", "--adapter", output, "--metrics", "loss"],
    }
    for name, words in commands.items():
        inner = " ".join(f"'{word}'" for word in words) + "; c=$?; cat /proc/net/dev; exit $c"
        code, said = lab.run("unshare", "-n", "sh", "-c", inner)
        counts = [
            int(n) for line in re.findall(r"^ *\w+: *(\d.*)$", said, re.M) for n in line.split()
        ]
        wrong = unclean(said) or (f"exit code {code}" if code else "")
        if not counts or any(counts):
            wrong = wrong or f"packets: {counts}"
        found.add(name, wrong, said)


def broken_input(lab: Lab, found: Found) -> None:
    """What ``make fuzz`` does."""
    words = [PYTHON, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", ROOT / "tests/fuzz"]
    code, said = lab.run(*words, seconds=1500, FUZZ=str(lab.times), FUZZ_SEED="13")
    for subject, ends in re.findall(r"([\w. 7]+): (\{'[^}]*\})", said):
        counts = json.loads(ends.replace("'", '"'))
        found.notes[subject.strip()] = sum(counts.values())
        found.attacks += sum(counts.values())
    failures = re.findall(r"(\d+) of (\d+) cases of ([\w. ]+); .*", said)
    for failed, of, subject in failures:
        found.attacks += int(of)
        found.problems += [f"{subject}: {failed}"] * int(failed)
    if code and not failures:
        found.add("pytest", f"exit code {code}", said)


def environment(lab: Lab, found: Found) -> None:
    cases: list[dict[str, str]] = [
        *({"RANK": "1"}, {"RANK": "x"}, {"WORLD_SIZE": "4"}, {"RANK": "0", "WORLD_SIZE": "4"}),
        *({"LOCAL_RANK": "3"}, {"RANK": "-1"}, {"RANK": "1", "LOCAL_RANK": "1"}),
        {"RANK": "5", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
        {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "x",
        },
    ]
    for case in cases:
        with lab.output() as output:
            run = fork(lab.flags(output), lab.log, partial(os.environ.update, case))
            code = wait(run)
            wrong = unclean(lab.said()) or ("" if code == 2 else f"exit code {code}")
            found.add(str(case), wrong, lab.said())
    for name in (
        "local_dataset.data_path",
        "output_dir",
        "model_name",
        "tokenizer_name",
        "lr",
        "peft_method",
    ):
        for value in ("", "x" * 300, "\x1b[2J\n   fix: rm"):
            with lab.output() as output:
                code = wait(fork(lab.flags(output, **{name: value}), lab.log))
                wrong = unclean(lab.said()) or ("" if code == 2 else f"exit code {code}")
                found.add(f"--{name}={value[:20]!r}", wrong, lab.said())


def hanging_rank(lab: Lab, found: Found) -> None:
    for names, code in (("SIGTERM", 75), ("SIGINT SIGINT", 130)) * 2:
        with lab.output() as output:
            runs = fork_ranks(lab.flags(output, max_train_step=600, num_epochs=99), lab.log)
            until_said(runs[0], lab.folder / "log.0", "first step")
            os.kill(runs[1], signal.SIGSTOP)
            named = until_said(runs[0], lab.folder / "log.0", "waiting for rank 1", 45)
            began = time.monotonic()
            for name in names.split():
                os.kill(runs[0], signal.Signals[name])
                time.sleep(0.5)
            ended = wait(runs[0], 30)
            seconds = time.monotonic() - began
            os.kill(runs[1], signal.SIGKILL)
            wait(runs[1])
            wrong = "" if named else "rank 1 is not named"
            wrong = wrong or ("" if ended == code else f"exit code {ended}")
            wrong = wrong or ("" if seconds < 5.5 else f"it took {seconds:.1f} s")
            found.add(names, wrong or unclean(lab.said()), lab.said())


def ranks_that_differ(lab: Lab, found: Found) -> None:
    other = write_rows(lab.folder / "others.jsonl", 301)
    model = lab.folder / "other-model"
    shutil.copytree(lab.model, model)
    config = model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rms_norm_eps": 1e-3}))
    ways: dict[str, tuple[dict[str, Any], str]] = {
        "data": ({"local_dataset.data_path": str(other)}, "the training data"),
        "model": ({"model_name": str(model)}, "config.json of --model_name"),
        "output": ({"output_dir": str(lab.folder / "elsewhere")}, "--output_dir"),
    }
    numbers = {"seed": 7, "lr": 0.5, "context_length": 32, "save_steps": 3, "max_train_step": 3}
    numbers |= {"batch_size_training": 1, "lora_config.r": 4, "eval_steps": 3}
    ways |= {name: ({name: value}, f"--{name}") for name, value in numbers.items()}
    slowest = 0.0
    for name, (last, named) in ways.items():
        with lab.output() as output:
            began = time.monotonic()
            codes = [wait(run) for run in fork_ranks(lab.flags(output), lab.log, last)]
            slowest = max(slowest, time.monotonic() - began)
            said = lab.said()
            wrong = unclean(said) or ("" if codes == [2, 2] else f"exit codes {codes}")
            wrong = wrong or ("" if f"ranks differ in {named}" in said else "it is not named")
            found.add(name, wrong, said)
    found.notes["slowest, seconds"] = round(slowest, 1)


def scale(lab: Lab, found: Found) -> None:
    def check(name: str, flags: dict[str, Any], codes: tuple[int, ...], seconds: float) -> None:
        began = time.monotonic()
        code = wait(fork(flags, lab.log), 120)
        took = time.monotonic() - began
        wrong = unclean(lab.said()) or ("" if code in codes else f"exit code {code}")
        found.add(name, wrong or ("" if took < seconds else f"it took {took:.0f} s"), lab.said())
        found.notes[f"{name}, seconds"] = round(took, 1)

    with lab.output() as output:
        shutil.copytree(lab.straight, output)
        shutil.rmtree(output / "checkpoint-6")
        log = output / "metrics.jsonl"
        line = log.read_text().splitlines()[0]
        log.write_text(f"{line}\nnull\n[]\n" + "\n".join([line] * 10_000) + "\n")
        check("10,000 lines of metrics", lab.flags(output), (0,), 60)
    deep = lab.folder / "deep"
    place = deep
    for _ in range(1_000):
        place = place / "d"
        if len(str(place)) > 3_900:
            break
    place.mkdir(parents=True)
    many = lab.folder / "many"
    many.mkdir()
    for n in range(5_000):
        (many / f"{n}.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    long = lab.folder / "long.jsonl"
    long.write_text(
        "\n".join(json.dumps({"prompt": "a " * 500_000, "completion": "b"}) for _ in range(30))
    )
    nested = lab.folder / "nested.jsonl"
    nested.write_text("[" * 100_000)
    for name, path, codes in (
        ("nested folders", deep, (2,)),
        ("5,000 files", many, (0,)),
        ("rows of 1 MB", long, (0, 2)),
        ("nested JSON", nested, (2,)),
    ):
        with lab.output() as output:
            check(name, lab.flags(output, **{"local_dataset.data_path": str(path)}), codes, 60)


def code_execution(lab: Lab, found: Found) -> None:
    """Models that bring code: a class of their own, pickled weights, templates that run."""
    mark = lab.folder / "exploded"
    evil = f"import os; os.mkdir({str(mark)!r})"

    def with_auto_map(model: Path) -> None:
        (model / "evil.py").write_text(evil)
        path = model / "config.json"
        path.write_text(
            json.dumps(
                json.loads(path.read_text())
                | {
                    "auto_map": {"AutoConfig": "evil.A", "AutoModelForCausalLM": "evil.B"},
                    "model_type": "evil",
                }
            )
        )

    def with_pickle(model: Path) -> None:
        (model / "model.safetensors").unlink()
        (model / "pytorch_model.bin").write_bytes(f"cos\nmkdir\n(S'{mark}'\ntR.".encode())

    def with_template(text: str, model: Path) -> None:
        path = model / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": text}))

    calls = (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        f"{{{{ cycler.__init__.__globals__.os.mkdir('{mark}') }}}}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ self.__init__.__globals__ }}",
    )
    attacks: list[tuple[str, Callable[[Path], None]]] = [
        ("auto_map", with_auto_map),
        ("pickle", with_pickle),
    ]
    attacks += [(text, partial(with_template, text)) for text in calls]
    chat = lab.folder / "chat.jsonl"
    chat.write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
        * 9
    )
    for name, attack in attacks:
        with lab.output() as output, lab.output("evil-model") as model:
            shutil.copytree(lab.model, model)
            attack(model)
            flags = lab.flags(
                output, model_name=str(model), **{"local_dataset.data_path": str(chat)}
            )
            code = wait(fork(flags, lab.log))
            wrong = unclean(lab.said()) or ("" if code == 2 else f"exit code {code}")
            found.add(name, "code ran" if mark.exists() else wrong, lab.said())


ROWS: dict[str, Callable[[Lab, Found], None]] = {
    "kill -9 at random moments, tokenising to publishing, sync and async": killed_at_moments,
    "kill -9 at a chosen file operation, sync and async": killed_at_file_operations,
    "two ranks killed: both, rank 0, rank 1": two_ranks_killed,
    "real torchrun: TERM, kill -9": real_torchrun,
    "damaged checkpoints": damaged,
    "disk full, 1 and 2 ranks, sync and async": full_disk,
    "folders removed, moved, shared; files, links and folders in their place": folders,
    "signals in each stage, 1 rank": signalled,
    "signals in each stage, 2 ranks": partial(signalled, ranks=2),
    "a rank that hangs": hanging_rank,
    "ranks that differ": ranks_that_differ,
    "environment and flags": environment,
    "code execution": code_execution,
    "scale": scale,
    "network: commands without one": network,
    "broken input (fuzz)": broken_input,
}


def main() -> None:
    """Run the rows, and write what was found after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a small model")
    parser.add_argument("--times", type=float, default=1.0, help="of the counts of attacks")
    parser.add_argument("--only", default="", help="a pattern of rows' names")
    parser.add_argument("--out", type=Path, help="JSON file for what was found")
    args = parser.parse_args()
    lab = Lab(args.model.resolve(), args.times)
    about = f"{os.cpu_count()} cores; Python {platform.python_version()}"
    about += f", torch {torch.__version__}, transformers {transformers.__version__}"
    rows: dict[str, Any] = {}
    if args.out and args.out.exists():  # rows may be measured one after the other
        rows = json.loads(args.out.read_text("utf-8"))["rows"]
    for name, attack in ROWS.items():
        if not re.search(args.only, name):
            continue
        began, found = time.monotonic(), Found()
        try:
            attack(lab, found)
        except Exception as error:  # a row that cannot be run is no reason to lose the others
            found.add("the row", repr(error))
        took = {"times": args.times, "seconds": round(time.monotonic() - began)}
        rows[name] = found.as_json() | took
        print(f"{name}: {len(found.problems)} of {found.attacks} broke", flush=True)
        for problem in found.problems[:3]:
            print(f"   {problem}", flush=True)
        if args.out:
            text = json.dumps({"about": about, "rows": rows}, indent=1)
            args.out.write_text(text + "\n", "utf-8")
    shutil.rmtree(lab.folder, ignore_errors=True)
    raise SystemExit(any(row["problems"] for row in rows.values()))


if __name__ == "__main__":
    main()

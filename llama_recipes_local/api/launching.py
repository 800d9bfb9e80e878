"""Starts several ranks on this machine from one process, such as a notebook.

torchrun starts each rank as a new process: this one may have threads or use CUDA, and neither
survives a fork. Flags and results are passed as JSON files in a folder of this process.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_recipes_local import launch
from llama_recipes_local.api.result import Result
from llama_recipes_local.errors import InterruptedRun, Problem, TrainingError, UsageError, refusal
from llama_recipes_local.extras import SOURCE
from llama_recipes_local.storage.publishing import write_json
from llama_recipes_local.typed_words import SETTINGS

FLAGS, RESULT, ERROR = "flags.json", "result.json", "error-{}.json"
PROGRAM = f"{__package__}.rank_program"
KINDS: dict[str, type[TrainingError]] = {"InterruptedRun": InterruptedRun}


def finetune_launched(processes: int, flags: dict[str, Any]) -> Result:
    """Fine-tune on several ranks of this machine; their output is printed here.

    Args:
        processes: how many ranks.
        flags: the flags, by name.

    Raises:
        UsageError: what the ranks raised, or if there cannot be so many.
        TrainingError: what the ranks raised.
    """
    _check(processes, flags)
    with tempfile.TemporaryDirectory(prefix="llama-recipes-local-") as name:
        folder = Path(name)
        write_json(folder / FLAGS, {"flags": flags, "ranks": processes, "parent": os.getpid()})
        code = _run(folder, processes)
        if (folder / RESULT).is_file() and not code:
            return Result.from_json(json.loads((folder / RESULT).read_text("utf-8")))
        raise _error(folder, code)


def _check(processes: int, flags: dict[str, Any]) -> None:
    given = f"num_processes={processes!r}"
    if type(processes) is not int or processes < 1:
        raise refusal(given, "it is a number of processes", "give 1 or more")
    if launch.launch() is not None:
        why = f"this process is itself rank {launch.rank()} of {launch.world_size()}"
        raise refusal(given, why, "leave it out: torchrun has started the ranks")
    asked = [value for name, value in flags.items() if name.rpartition(".")[2] == "enable_fsdp"]
    from_file = any(flags.get(name) for name in SETTINGS)  # which may ask for it
    if not from_file and not any(str(value).lower() in ("true", "1") for value in asked):
        why = "each process would train its own copy of the model on the same data"
        raise refusal(f"{given} without enable_fsdp", why, "add enable_fsdp=True, or leave it out")
    try:
        json.dumps(flags)
    except TypeError as error:
        what = f"{given} with a value that is not a text, number, boolean or list"
        raise refusal(what, str(error), "write it as on a command line") from error


def _run(folder: Path, processes: int) -> int:
    """Run the ranks, print what they print, and return their exit code."""
    own = str(SOURCE)
    places = os.pathsep.join(filter(None, [own, os.environ.get("PYTHONPATH", "")]))
    threads = str(-(-(os.cpu_count() or 1) // processes))
    environment = {"OMP_NUM_THREADS": threads} | os.environ | {"PYTHONPATH": places}
    ranks = subprocess.Popen(
        [sys.executable, "-m", PROGRAM, str(folder)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="backslashreplace",
        start_new_session=True,  # a signal reaches the ranks through torchrun, once
    )
    with ranks, _ended(ranks):
        for line in _lines(ranks):
            print(line, end="", flush=True)
    return ranks.returncode


def _lines(ranks: "subprocess.Popen[str]") -> Iterator[str]:
    """Yield what is printed; Ctrl-C has the ranks save and stop, a second one ends them."""
    assert ranks.stdout is not None
    interrupted = False
    while True:
        try:
            line = ranks.stdout.readline()
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            ranks.send_signal(signal.SIGINT)
            continue
        if not line:
            return
        yield line


@contextlib.contextmanager
def _ended(ranks: "subprocess.Popen[str]") -> Iterator[None]:
    """Have the ranks end with the block, however it ends."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(ranks.pid, signal.SIGTERM)
        raise


def _error(folder: Path, code: int) -> Exception:
    """Return what ended the ranks: the first problem that one of them has written."""
    for path in sorted(folder.glob(ERROR.format("*"))):
        found = json.loads(path.read_text("utf-8"))
        if found["problems"]:
            return UsageError([Problem(*each) for each in found["problems"]])
        if found["text"]:
            return KINDS.get(found["kind"], TrainingError)(found["text"])
    return TrainingError(f"the ranks have ended with exit code {code}; see what they printed")

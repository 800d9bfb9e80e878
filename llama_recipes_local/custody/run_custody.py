"""Writes the manifest of a run: its inputs are hashed while it trains, its results at the end."""

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llama_recipes_local.checkpoints import layout, selection
from llama_recipes_local.closing import saved_folder
from llama_recipes_local.custody.custody_file import (
    Files,
    Step,
    find_manifest,
    read_manifest,
    with_results,
    write_manifest,
)
from llama_recipes_local.custody.run_inputs import (
    OF_MODELS,
    Places,
    absolute,
    file_place,
    folder_place,
    hashed,
    names,
    run_inputs,
)
from llama_recipes_local.custody.software_facts import (
    code,
    machine,
    packages,
    upstream,
)
from llama_recipes_local.data.cache import cache_folder
from llama_recipes_local.datasets.tokenized_splits import HASHES
from llama_recipes_local.errors import UsageError, refuse
from llama_recipes_local.fields import OF_ONE_RUN, fields_with
from llama_recipes_local.models.precision import weight_dtype
from llama_recipes_local.preflight.config_file import CONFIG_FLAGS
from llama_recipes_local.preflight.flags import configurations
from llama_recipes_local.recipes import shipped
from llama_recipes_local.run import Run
from llama_recipes_local.run.record import CUSTODY_FILE, describe
from llama_recipes_local.storage import data_root
from llama_recipes_local.storage.hashing import contents_hash
from llama_recipes_local.storage.watched_folder import WatchedFolder

_LOGGING = ("report_to", "use_wandb", "wandb_config")
"""Flags that change no number; what logs may reach for a network."""
THREAD_NAME = "custody"


@dataclass
class RunCustody:
    """The manifest of a run, on the first rank; used in a ``with`` block around the run.

    Its inputs are hashed by a thread, which writes nothing after the block: another run may use the
    folder then.

    Attributes:
        step: what is known when the run begins.
        output: the run's folder.
        places: the files that it reads.
        memory: the cache of files' hashes.
    """

    step: Step
    output: Path
    places: Places
    memory: Path
    _failure: list[BaseException] = field(default_factory=list)
    _thread: threading.Thread | None = None
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _ended: bool = False

    def __enter__(self) -> "RunCustody":
        """Hash the inputs while the run trains, then write the manifest as known so far."""
        watched = WatchedFolder(self.output)
        self._thread = threading.Thread(
            target=self._hash, args=(watched,), name=THREAD_NAME, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._writing:
            self._ended = True

    def _hash(self, output: WatchedFolder) -> None:
        try:
            inputs = hashed(self.places, self.memory)
            self.step = replace(self.step, inputs=inputs, packages=packages())
            with self._writing:
                # if the folder was moved, the run ends, and another folder may have its name
                if not self._ended and output.is_in_place():
                    write_manifest(self.output / CUSTODY_FILE, [self.step])
        except Exception as error:  # what no run ends by: ``finish`` says it
            self._failure.append(error)
        finally:
            output.close()

    def finish(
        self,
        settings: Mapping[str, Any],
        results: Callable[[], dict[str, Files]],
        flags: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the manifest of a finished run, or print why there is none.

        Args:
            settings: every setting of the run.
            results: returns the hashes of what it has written.
            flags: the flags that repeat the run as it ended; None means those it began with.
        """
        assert self._thread is not None
        self._thread.join()
        try:
            if self._failure:
                raise self._failure[0]
            done = replace(self.step, settings=dict(settings), packages=packages())
            if flags is not None:
                done = replace(done, flags=dict(flags))
            write_manifest(self.output / CUSTODY_FILE, [with_results(done, results())])
        except Exception as error:  # the result is there, and worth more
            print(f"--> {self.output / CUSTODY_FILE} is not written: {error}")


def custody_of(run: Run) -> RunCustody:
    """Return the manifest of a run, whose output folder exists."""
    places, problems = run_inputs(run)
    refuse(problems)  # of data that was there when it was prepared
    named = [str(run.flags[flag]) for flag in CONFIG_FLAGS if flag in run.flags]
    if named and named[0] not in shipped.names():
        places["config"] = file_place(Path(named[0]))
    resumed, earlier = _earlier(run)
    dtype = str(weight_dtype(run.train)).removeprefix("torch.")
    step = new_step("finetune", repeatable_flags(run), described(run), dtype)
    step = replace(step, resumed_from=resumed, earlier=earlier)
    memory = cache_folder(run.train.data_cache) / HASHES
    return RunCustody(step, absolute(run.train.output_dir), places, memory)


def finish_custody(custody: RunCustody, run: Run) -> None:
    """Write the manifest of a run that has come to its end."""
    custody.finish(described(run), lambda: run_results(run), repeatable_flags(run))


def new_step(
    command: str, flags: Mapping[str, Any], settings: Mapping[str, Any], dtype: str
) -> Step:
    """Return a step of this process, without its inputs and packages: both take seconds to find."""
    return Step(
        command=command,
        directory=os.getcwd(),
        flags=dict(flags),
        settings=dict(settings),
        inputs={},
        code=code(),
        upstream=upstream(),
        packages={},
        machine=machine(dtype),
    )


def repeatable_flags(run: Run) -> dict[str, Any]:
    """Return the flags that repeat a run.

    Flags that name the user's own code are left out: only the user decides what code is run.
    """
    once = {name for cls in configurations().values() for name in fields_with(cls, OF_ONE_RUN)}
    left_out = {*once, *_LOGGING, "file"}
    flags = {
        flag: value
        for flag, value in run.flags.items()
        if not {flag.rpartition(".")[2], flag.partition(".")[0]} & left_out
    }
    if not run.train.data_root and os.environ.get(data_root.ENVIRONMENT_VARIABLE):
        flags["data_root"] = str(data_root.data_root())
    return flags


def described(run: Run) -> dict[str, Any]:
    """Return every setting of a run, by configuration, and the hashes of its tokens."""
    kept = [type(config).__name__ for config in run.configurations()]
    return {name: each for name, each in describe(run).items() if name in (*kept, "data")}


def _earlier(run: Run) -> tuple[str, list[Step]]:
    """Return the checkpoint that a run resumes from, and its manifest up to there."""
    checkpoint = selection.expected(run.train)
    if checkpoint is None:
        return "", []
    path = find_manifest(checkpoint.absolute())
    try:
        manifest = read_manifest(path) if path is not None else None
    except UsageError:  # a part of the history is missing, which ``replay`` says
        manifest = None
    if manifest is None or not manifest.intact:
        return checkpoint.name, []
    last = manifest.steps[-1]
    return checkpoint.name, [*last.earlier, replace(last, earlier=[], results={})]


def run_results(run: Run) -> dict[str, Files]:
    """Return the hashes of what a run has written: weights, tokenizer, records, checkpoints."""
    output = absolute(run.train.output_dir)
    found = {"output_dir": folder_results(output)}
    saved = saved_folder(run)
    if saved is not None and absolute(saved) != output:
        found["dist_checkpoint_root_folder"] = folder_results(absolute(saved))
    return found


def folder_results(folder: Path) -> Files:
    """Return the hashes of a folder's weights and what is used with them, and of checkpoints."""
    place = folder_place(folder, (*OF_MODELS, "*.gguf", "Modelfile"))
    files = dict(zip(names(place), map(contents_hash, place.files), strict=True))
    for checkpoint in reversed(layout.checkpoints_in(folder)):
        with suppress(layout.CorruptCheckpointError):  # nothing is made of it
            for name, entry in sorted(layout.read_manifest(checkpoint).files.items()):
                if name.endswith(".safetensors"):
                    files[f"{checkpoint.name}/{name}"] = entry.sha256
    return Files(str(folder), files)

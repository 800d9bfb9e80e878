"""Starts the process that rehearses a run, then reports its result and what the run takes."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_recipes_local import launch
from llama_recipes_local.adapters.registry import METHODS
from llama_recipes_local.configs.training import AUTO
from llama_recipes_local.data.audit import SplitAudit
from llama_recipes_local.datasets.prepared_data import RunData
from llama_recipes_local.errors import TrainingError
from llama_recipes_local.job_files.filled_in import kubernetes_job, slurm_script
from llama_recipes_local.model_checkpointing import StateDictType
from llama_recipes_local.model_folders.weight_files import is_without_weights
from llama_recipes_local.planning.flags import words
from llama_recipes_local.preflight.dry_run import plan_text, planned_changes
from llama_recipes_local.rehearsal.script import FAILURE, Script
from llama_recipes_local.rehearsal.small_run import SmallRun, small_run
from llama_recipes_local.run import Run
from llama_recipes_local.screen import shown_path
from llama_recipes_local.storage.disk import nearest_existing
from llama_recipes_local.storage.names import free_path, hidden_beside
from llama_recipes_local.storage.publishing import write_text

PROMPT = "Once upon a time"
PERFORM = "llama_recipes_local.rehearsal"
"""The module that is run in the other process."""


def rehearse(run: Run, flags: Mapping[str, Any]) -> None:
    """Rehearse a run in a folder beside its output folder, which is removed if all went well.

    Args:
        run: checked, with its data.
        flags: as they were given.

    Raises:
        TrainingError: with the stage that failed; then the folder is kept.
    """
    output = Path(run.train.output_dir).resolve()
    beside = hidden_beside(output, "-rehearsal-").name
    folder = Path(tempfile.mkdtemp(prefix=beside, dir=nearest_existing(output.parent)))
    print(f"\n{run.data}\n\n--> rehearsing in {shown_path(folder)}", flush=True)
    try:
        small = small_run(run, folder)
        failed = _perform(_script(run, small, folder))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if failed:
        kept = f"what was written is kept in {folder}"
        raise TrainingError(f"the rehearsal failed in {failed}\n   fix: see above; {kept}")
    shutil.rmtree(folder)
    print(f"\n{_shown(run, small)}\n\n{_what_it_takes(run, flags, output)}")


def _script(run: Run, small: SmallRun, folder: Path) -> Script:
    train, model = run.train, Path(run.train.model_name).expanduser().resolve()
    return Script(
        folder=str(folder),
        model=str(model),
        tokenizer=small.flags["tokenizer_name"],
        flags=small.flags,
        ranks=small.ranks,
        prompt=(run.data.example if run.data is not None else "") or PROMPT,
        adapter=train.use_peft,
        mergeable=train.use_peft and METHODS[train.peft_method].is_mergeable,
        sharded=train.enable_fsdp
        and not train.use_peft
        and run.fsdp.checkpoint_type == StateDictType.SHARDED_STATE_DICT,
    )


def _perform(script: Script) -> str:
    """Run the stages in another process, without CUDA; return which failed, and how."""
    file = script.write()
    left_out = {*launch.VARIABLES, "LOCAL_WORLD_SIZE"}
    own = {
        name: value
        for name, value in os.environ.items()
        if name not in left_out and not name.startswith("TORCHELASTIC")
    }
    places = [str(Path(__file__).parents[2]), own.get("PYTHONPATH", "")]
    own |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(filter(None, places))}
    words = [sys.executable, "-m", PERFORM, str(file), str(os.getpid())]
    code = _print_what_it_says(words, own)
    failure = Path(script.folder, FAILURE)
    if failure.is_file():
        return failure.read_text("utf-8")
    return f"its process, which ended with exit code {code}" if code else ""


def _print_what_it_says(words: list[str], environment: Mapping[str, str]) -> int:
    """Run a command, print its output here, in a notebook too, and return its exit code."""
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
        except BaseException:
            process.kill()
            raise
    return process.returncode


def _shown(run: Run, small: SmallRun) -> str:
    """Return what a successful rehearsal has shown, and what it could not show."""
    model = Path(run.train.model_name).expanduser().resolve()
    weights = "; there are no weights in the folder yet" if is_without_weights(model) else ""
    lines = [
        "the rehearsal held: every stage of the run works with this data, tokenizer and flags",
        "not shown: GPU memory, speed, half precision and how well the model learns: the small "
        f"model has random weights{weights}",
    ]
    if small.differs:
        lines.append(f"otherwise than in the run: {', '.join(small.differs)}")
    return "\n".join(lines)


def _what_it_takes(run: Run, flags: Mapping[str, Any], output: Path) -> str:
    """Return the plan of the run itself, and write job files that start it."""
    audits: Mapping[str, SplitAudit] = run.data.audits if isinstance(run.data, RunData) else {}
    given = {name: value for name, value in flags.items() if not name.endswith("rehearse")}
    if given.get("resume_from_checkpoint") == AUTO:  # as each job does by itself
        del given["resume_from_checkpoint"]
    own = words({**given, **planned_changes(run, audits)})
    nodes = max(launch.world_size() // launch.ranks_of_host(), 1)
    gpus = launch.ranks_of_host()
    texts = {"job.sh": slurm_script(own, nodes, gpus)}
    if nodes == 1:
        texts["job.yaml"] = kubernetes_job(own, gpus)
    lines = [plan_text(run, audits), "job files:"]
    for ending, text in texts.items():
        path = free_path(output.with_name(f"{output.name}-{ending}"), Path(ending).suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        starts = "sbatch" if ending == "job.sh" else "kubectl create -f"
        lines.append(f"  {starts} {shown_path(path)}")
    return "\n".join(lines)

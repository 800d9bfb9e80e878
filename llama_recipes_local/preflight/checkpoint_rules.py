"""Rules for checkpoints: how often, how many, and which one to resume from."""

import shlex
from pathlib import Path

from llama_recipes_local.checkpoints import layout, selection, verifying
from llama_recipes_local.checkpoints.layout import CorruptCheckpointError
from llama_recipes_local.checkpoints.selection import AUTO
from llama_recipes_local.errors import Problem
from llama_recipes_local.run import Run
from llama_recipes_local.storage.folder_lock import check_lock


def check_resumed(run: Run) -> list[Problem]:
    """Return what is wrong with the checkpoint to resume from, or with those in the output."""
    train = run.train
    output, asked = Path(train.output_dir), train.resume_from_checkpoint
    there = layout.checkpoints_in(output)
    if asked == AUTO or check_lock(output):  # which ``check_earlier_result`` reports
        return []
    if not asked:
        return [_mixed(output, there[0])] if there and not train.overwrite_output_dir else []
    folder = Path(asked)
    if problems := _corrupt(folder, output):
        return problems
    if not selection.is_in(output, folder):
        return [_mixed(output, there[0])] if there and not train.overwrite_output_dir else []
    step = layout.step_of(folder.resolve())
    newer = [path for path in there if (layout.step_of(path) or 0) > (step or 0)]
    return [_superseded(folder, newer[0])] if newer else []


def _corrupt(folder: Path, output: Path) -> list[Problem]:
    """Return why a checkpoint cannot be resumed from, as far as it shows without its tensors."""
    try:
        verifying.check_quickly(folder)
    except CorruptCheckpointError as error:
        why = str(error) if folder.is_dir() else f"there is no folder {folder.resolve()}"
        problem = Problem(
            f"--resume_from_checkpoint {folder}", why, selection.alternative(folder, output)
        )
        if (folder / "adapter_config.json").is_file():
            flag = f"--from_peft_checkpoint {shlex.quote(str(folder))}"
            problem = problem.or_else(f"train its adapter in a new run: {flag}")
        return [problem]
    return []


def _mixed(output: Path, newest: Path) -> Problem:
    return Problem(
        f"--output_dir {output} holds {newest.name} of another run",
        "a new run's checkpoints would mix with that run's",
        "resume it with --resume_from_checkpoint auto, name another --output_dir, or give that run "
        "up: --overwrite_output_dir",
    )


def _superseded(folder: Path, newer: Path) -> Problem:
    return Problem(
        f"--resume_from_checkpoint {folder} with {newer.name} in --output_dir",
        "`auto` would resume from the newer one the next time, although this run did not save it",
        "use --resume_from_checkpoint auto, or name another --output_dir",
    )

"""The manifest of a run of ``sft.py``."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from llama_recipes_local.commands.sft.sft_run import SftRun
from llama_recipes_local.custody.run_custody import RunCustody, folder_results, new_step
from llama_recipes_local.custody.run_inputs import (
    absolute,
    file_place,
    folder_place,
    source_places,
)
from llama_recipes_local.data.cache import cache_folder
from llama_recipes_local.datasets.tokenized_splits import HASHES
from llama_recipes_local.run import Source

_OF_ONE_RUN = ("output_dir", "overwrite_output_dir", "report_to", "data_cache", "logging_dir")


def sft_custody_of(run: SftRun) -> RunCustody:
    """Return the manifest of a run, whose output folder exists."""
    places = {"model_name_or_path": folder_place(run.model.model_name_or_path)}
    places |= source_places(Source("", "local_dataset", 1, run.dataset), parts=run.parts)
    flags = {flag.name: list(flag.values) for flag in run.flags if flag.name not in _OF_ONE_RUN}
    for word in flags.get("chat_template_path", []):
        template = absolute(word)
        is_folder = template.is_dir()
        places["chat_template_path"] = (folder_place if is_folder else file_place)(template)
    step = new_step("sft", flags, settings(run), str(run.model.dtype))
    memory = cache_folder(run.local.data_cache) / HASHES
    return RunCustody(step, absolute(run.training.output_dir), places, memory)


def finish_sft_custody(custody: RunCustody, run: SftRun, output: Path) -> None:
    """Write the manifest of a run that has come to its end."""
    custody.finish(settings(run), lambda: {"output_dir": folder_results(absolute(output))})


def settings(run: SftRun) -> dict[str, Any]:
    """Return what is recorded of a run's settings; its flags have TRL's."""
    data = run.run.data
    return {
        "local_dataset": asdict(run.dataset),
        "seed": run.training.seed,
        "data": dict(data.fingerprints) if data is not None else {},
    }

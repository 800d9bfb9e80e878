"""Whether tokens that were prepared in advance are those that the run's flags ask for."""

from pathlib import Path

from llama_recipes_local.datasets.tokenized_splits import tokenizer_hash
from llama_recipes_local.datasets.tokens_folder import (
    FLAG,
    check_folder,
    read_about,
    settings_of,
)
from llama_recipes_local.errors import Problem
from llama_recipes_local.models.loading import run_tokenizer
from llama_recipes_local.preflight.model import check_tokenizer
from llama_recipes_local.program import command
from llama_recipes_local.run import Run

SHOWN = 12  # digits of a hash


def check_tokens(run: Run) -> list[Problem]:
    """Find settings, or a tokenizer, that differ from those that the tokens were made with."""
    folder = Path(run.train.tokens_path)
    if not run.train.tokens_path or run.dataset is None or check_folder(folder):
        return []  # what is wrong with the folder is reported
    about = read_about(folder)
    return [*_settings(run, folder, about["settings"]), *_tokenizer(run, about["tokenizer"])]


def _settings(run: Run, folder: Path, made: dict[str, object]) -> list[Problem]:
    now = settings_of(run)
    names = [name for name in made if now.get(name) != made[name]]
    if "dataset" in names:  # its settings are other ones
        names = ["dataset"]
    return [
        Problem(
            f"--{name} {now.get(name)} with --{FLAG} {folder}",
            f"its tokens were made with --{name} {made[name]}",
            f"leave --{name} out, or make tokens with it: {command('prepare', 'tokens')}",
        )
        for name in names
    ]


def _tokenizer(run: Run, made: str) -> list[Problem]:
    if check_tokenizer(run):
        return []  # it is reported that there is none
    found = tokenizer_hash(run_tokenizer(run))
    if found == made:
        return []
    named = run.train.tokenizer_name or run.train.model_name
    return [
        Problem(
            f"the tokenizer of {named} with --{FLAG} {run.train.tokens_path}",
            f"its rules, special tokens and chat template have the hash {found[:SHOWN]}; the "
            f"tokens were made with {made[:SHOWN]}",
            "name the folder that they were made with: --tokenizer_name DIR",
        )
    ]

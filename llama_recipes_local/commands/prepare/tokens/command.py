"""``llama-recipes-local prepare tokens``: tokenises a run's data into a folder."""

from pathlib import Path
from typing import Any

from llama_recipes_local.datasets.base import PARTS
from llama_recipes_local.datasets.run_data import join_sources, prepare_sources, untokenized
from llama_recipes_local.datasets.tokens_folder import FLAG, save_tokens
from llama_recipes_local.errors import Problem, refuse
from llama_recipes_local.messages import amount
from llama_recipes_local.model_folders.output_folder import check_output_folder
from llama_recipes_local.models.loading import run_tokenizer
from llama_recipes_local.preflight import preflight_data
from llama_recipes_local.run import Run
from llama_recipes_local.screen import shell_command


def prepare_tokens(*arguments: object, out: Path, **flags: Any) -> None:
    """Tokenise the data of a run. Takes the flags of finetuning.py.

    Args:
        *arguments: none; every setting has a flag.
        out: the folder for the tokens.
        **flags: those of finetuning.py, --dataset and --model_name among them.

    Raises:
        UsageError: if a flag is wrong, or the data or the tokenizer cannot be used.
    """
    out = out.expanduser().resolve()
    run = preflight_data(arguments, flags, found=_taken(out, flags), others=("out",))
    refuse(_streams(run))
    tokenizer = run_tokenizer(run)
    prepared = prepare_sources(run, PARTS, tokenizer)
    refuse([each for name in prepared for each in untokenized(name, prepared[name])])
    data = join_sources(run, prepared, tokenizer)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_tokens(run, prepared, data, out)
    size = sum(path.stat().st_size for path in out.iterdir())
    command = ["finetuning.py", "--model_name", run.train.model_name, f"--{FLAG}", str(out)]
    print(f"\n{data}\n\n--> {out}: {amount(size)}; train on it, wherever it is copied to:")
    print(shell_command(["python", *command]))


def _taken(out: Path, flags: dict[str, Any]) -> list[Problem]:
    problems = check_output_folder(out)
    if {FLAG, f"train_config.{FLAG}"} & flags.keys():
        why = "the tokens there are made already"
        problems.append(Problem(f"--{FLAG} with prepare tokens", why, f"leave --{FLAG} out"))
    return problems


def _streams(run: Run) -> list[Problem]:
    if not any(getattr(source.config, "streaming", False) for source in run.sources):
        return []
    why = "a stream is tokenised while training reads it, and not ahead"
    flag = "--local_dataset.streaming"
    return [Problem(f"{flag} with prepare tokens", why, f"leave {flag} out")]

"""The held-out rows of the run that an export comes from, or of the data set that is named."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from llama_recipes_local.answers.questions import questions
from llama_recipes_local.certificates.held_out import (
    MOST_ANSWERS,
    MOST_ROWS,
    HeldOut,
    Row,
    chosen_rows,
)
from llama_recipes_local.commands.evaluate.recorded_run import resolve_run
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.datasets.base import find_split
from llama_recipes_local.datasets.prompt_template import PromptTemplate
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.datasets.run_data import prepare_data
from llama_recipes_local.errors import Problem, UsageError, caught, refusal, refuse
from llama_recipes_local.models.loading import run_tokenizer
from llama_recipes_local.run import Run, activate
from llama_recipes_local.run.record import SavedRun

SHIPPED = "the certificate measures the package's own questions"


def held_out_run(
    model: Path | None, adapter: Path | None, tokenizer: Path | None, dataset: str | None
) -> Run | None:
    """Return the run whose validation rows are measured; None, said, for the package's questions.

    Args:
        model: the model's folder, or the adapter's base model's; None means the one it names.
        adapter: the adapter's folder; None exports a model.
        tokenizer: the tokenizer's folder; None means the run's, or the model's.
        dataset: the data set that the user names; None means the run's.

    Raises:
        UsageError: if the named data set cannot be used.
    """
    folder = adapter or model
    if folder is None:
        return None
    folder = folder.expanduser().resolve()
    if dataset is None and not SavedRun(folder).get("train_config", "dataset"):
        print(f"--> {SHIPPED}: no run's record is with the model (--dataset NAME names others)")
        return None
    named = {"model_name": model, "tokenizer_name": tokenizer, "dataset": dataset}
    flags = {name: str(value) for name, value in named.items() if value is not None}
    with _usable(dataset is not None):
        return resolve_run((), folder if adapter else None, flags)
    return None


def held_out_rows(run: Run, named: bool) -> HeldOut | None:
    """Return a run's validation rows, tokenised; None, said, if they cannot be used.

    Args:
        run: the run.
        named: whether the user named the data set.

    Raises:
        UsageError: if the named data set cannot be used.
    """
    with _usable(named), activate(run):
        run.data = prepare_data(run, ("test",))
        rows = run.data.splits["test"]
        what = f"the data set {run.train.dataset}"
        if not isinstance(rows, TokenRows):
            raise refusal(what, "it is a stream, or has its own batches", "--dataset NAME")
        prompts, template = _prompts(run)
        places = range(0, len(rows), max(1, len(rows) // MOST_ROWS))
        measured = [Row(*(each.tolist() for each in rows.arrays(place))) for place in places]
        if not chosen_rows(measured, 1):
            raise refusal(what, "none of its validation rows has labels", "--dataset NAME")
        return HeldOut(
            source=f"validation data of {run.train.dataset}",
            rows=measured,
            prompts=prompts,
            template=template,
        )
    return None


@contextmanager
def _usable(named: bool) -> Iterator[None]:
    """Let data that cannot be used pass, said, unless the user named it.

    Raises:
        UsageError: if the user did.
    """
    with caught() as problems:
        yield
    if named:
        refuse([_without_flags_of_data(problem) for problem in problems])
    for problem in problems:
        print(f"--> {SHIPPED}, not the run's data: {problem.what}: {problem.why}")


def _without_flags_of_data(problem: Problem) -> Problem:
    """Return a problem without the ways to fix it by a data set's own flags, which export lacks."""
    ways = problem.fix.split(", or ")
    kept = [way for way in ways if not re.search(r"--\w+_dataset\.", way)]
    if len(kept) == len(ways):
        return problem
    other = "name another file or folder, in a layout that is known: --dataset PATH"
    return replace(problem, fix=", or ".join([*kept, other]))


def _prompts(run: Run) -> tuple[list[str], PromptTemplate | None]:
    """Return some prompts of the validation part, and their template; none without responses."""
    tokenizer, source = run_tokenizer(run), run.main_source
    split = find_split(DATASETS[source.dataset], source.config, "test", tokenizer)
    if split is None:
        return [], None
    try:
        asked = questions(split, tokenizer, MOST_ANSWERS)
    except UsageError:  # all of its text is trained
        return [], None
    return [each.prompt for each in asked], split.formatter.prompt_template(tokenizer)

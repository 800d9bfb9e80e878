"""Rules for answers at validations: the data has prompts, and metrics have their packages."""

import io
from contextlib import redirect_stdout

from llama_recipes_local import extras
from llama_recipes_local.answers.scored_rows import answer_metrics, find_scored_rows
from llama_recipes_local.configs.training import GLEU, ROUGE_L
from llama_recipes_local.errors import Problem, caught
from llama_recipes_local.models.loading import run_tokenizer
from llama_recipes_local.preflight.data_rules import check_data_files
from llama_recipes_local.preflight.model import check_tokenizer
from llama_recipes_local.run import Run

_PACKAGES = {GLEU: "nltk", ROUGE_L: "rouge_score"}


def check_scored_rows(run: Run) -> list[Problem]:
    """Find rows that cannot be asked about, or answers that cannot be measured."""
    rows = run.train.eval_generation_rows
    if rows <= 0 or not run.train.run_validation or not run.sources:
        return []
    problems = [
        problem
        for metric in answer_metrics(run)
        if metric in _PACKAGES
        for problem in extras.check_installed(
            _PACKAGES[metric], f"--eval_generation_rows {rows}, of which {metric}", "evaluate"
        )
    ]
    with redirect_stdout(io.StringIO()), caught() as found:  # how the data is read was said
        if not check_tokenizer(run) and not check_data_files(run):  # which are reported
            find_scored_rows(run, run_tokenizer(run))
    return problems + found

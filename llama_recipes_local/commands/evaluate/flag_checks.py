"""Checks of the flags of ``evaluate``, before anything is measured."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from llama_recipes_local import extras
from llama_recipes_local.adapters.registry import method_of_type
from llama_recipes_local.answers.model_source import ModelSource
from llama_recipes_local.answers.questions import Question
from llama_recipes_local.benchmark_tasks.tasks import TASKS
from llama_recipes_local.commands.evaluate.metrics import (
    METRICS,
    AnswerMetric,
    answer_metrics,
    loss_metrics,
)
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.errors import Problem, refusal, refuse
from llama_recipes_local.messages import join_names
from llama_recipes_local.model_folders.adapter_files import read_adapter_config
from llama_recipes_local.preflight.adapter_rules import check_attention
from llama_recipes_local.run import Run
from llama_recipes_local.storage.names import free_path, refuse_output_file


def choose_metrics(metrics: str | None, dataset: str) -> list[str]:
    """Return the names of the metrics: those given, or the data set's.

    Raises:
        UsageError: if a metric is unknown, a package is missing, or the data has no answers.
    """
    asked = [name.strip() for name in (metrics or "").split(",") if name.strip()]
    asked = asked or [*loss_metrics(), *DATASETS[dataset].metrics]
    problems = [
        Problem(f"--metrics {name}", "unknown metric", f"choose from {','.join(METRICS)}")
        for name in asked
        if name not in METRICS
    ]
    if set(asked) & set(answer_metrics()) and DATASETS[dataset].split is None:
        why = f"{dataset} has no separate prompts and responses"
        problems.append(Problem(f"--metrics {','.join(asked)}", why, "--metrics loss,perplexity"))
    refuse(problems)
    for name in asked:
        if METRICS[name].package:
            extras.require(METRICS[name].package, f"--metrics {name}", "evaluate")
    return asked


def refuse_benchmark_flags(**flags: object) -> None:
    """Refuse the flags of a benchmark where none is named.

    Raises:
        UsageError: if there are any; one that was not given is None or False.
    """
    fix = f"--benchmark NAME, one of {', '.join(TASKS)}; or leave it out"
    refuse(
        [
            Problem(f"--{name} without --benchmark", "it only applies to a benchmark", fix)
            for name, value in flags.items()
            if value is not None and value is not False
        ]
    )


def refuse_attention(run: Run, source: ModelSource) -> None:
    """Refuse an attention kernel with which the adapter's loss cannot be measured.

    Raises:
        UsageError: if it is one.
    """
    if source.adapter is None:
        return
    method = method_of_type(read_adapter_config(source.adapter)["peft_type"])
    if method is not None:
        what = f"--adapter {source.adapter}, which is {method.name}"
        refuse(check_attention(run, method, what))


def refuse_missing_sources(asked: list[Question], metrics: list[str]) -> None:
    """Refuse a metric that needs the source texts of questions that have none.

    Raises:
        UsageError: if there is one.
    """
    if all(each.source for each in asked):
        return
    for name in metrics:
        metric = METRICS[name]
        if isinstance(metric, AnswerMetric) and metric.needs_source:
            raise refusal(
                f"--metrics {name} with this data set",
                "it compares a correction with the source text, which is not known here",
                "leave it out, or use grammar_dataset with your own files: "
                "--grammar_dataset.test_split=FILE.csv",
            )


def refuse_numbers(batch_size: object, max_new_tokens: object, max_examples: object) -> None:
    """Refuse sizes that are not integers, or too small.

    Raises:
        UsageError: if there are any.
    """
    problems = [
        Problem(f"--{name} {value}", "it must be an integer above 0", f"--{name} 8")
        for name, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens))
        if type(value) is not int or value < 1
    ]
    if type(max_examples) is not int or max_examples < 0:
        why, fix = "it must be an integer; 0 means all", "--max_examples 100"
        problems.append(Problem(f"--max_examples {max_examples}", why, fix))
    refuse(problems)


def refuse_unknown_tokens(
    used: Iterable[int], tokenizer: PreTrainedTokenizerBase, rows: int
) -> None:
    """Refuse data with tokens that the model has no rows for, before its weights are loaded.

    Raises:
        UsageError: if there are any.
    """
    unknown = sorted(token for token in used if token >= rows)
    if unknown:
        names = join_names(str(tokenizer.convert_ids_to_tokens(token)) for token in unknown)
        what = f"the data has tokens that the model has no rows for: {names}"
        fix = "name the tokenizer that was trained with the model: --tokenizer_name DIR"
        raise refusal(what, f"the model's vocabulary has {rows:,} tokens", fix)


def result_file(out: str | None) -> Path:
    """Return the file that the result is saved to, checked before anything is measured.

    Args:
        out: its path; None for the first file of a series that does not exist.

    Raises:
        UsageError: if it cannot be written.
    """
    path = (
        Path(out).expanduser().resolve()
        if out
        else free_path(Path.cwd() / "evaluation.json", ".json")
    )
    refuse_output_file(path, "--out", "evaluation.json")
    return path


def compared_files(
    files: Sequence[Path], others: tuple[object, ...], flags: Mapping[str, object]
) -> tuple[Path, Path]:
    """Return the two files of ``--compare``.

    Args:
        files: the flag's values.
        others: words that stand behind them.
        flags: other flags, which are refused.

    Raises:
        UsageError: if there are not exactly two files, or there are other flags.
    """
    if len(files) != 2 or others or flags:
        given = " ".join([*map(str, (*files, *others)), *(f"--{name}" for name in flags)])
        fix = "--compare A.json B.json"
        raise refusal(f"--compare {given}", "it takes exactly two files", fix)
    first, second = files
    return first.expanduser(), second.expanduser()

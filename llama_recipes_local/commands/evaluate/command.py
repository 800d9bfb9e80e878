"""``llama-recipes-local evaluate``: measures a model, or compares two results."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llama_recipes_local import extras
from llama_recipes_local.adapters.registry import method_of_type
from llama_recipes_local.commands.evaluate.bootstrap import interval
from llama_recipes_local.commands.evaluate.comparing import compare as compare_files
from llama_recipes_local.commands.evaluate.document_losses import measure_loss
from llama_recipes_local.commands.evaluate.metrics import (
    METRICS,
    Answer,
    AnswerMetric,
    answer_metrics,
    loss_metrics,
)
from llama_recipes_local.commands.evaluate.questions import Question, questions
from llama_recipes_local.commands.evaluate.recorded_run import resolve_run
from llama_recipes_local.commands.evaluate.results import Result, table
from llama_recipes_local.commands.generate.generator import Generator, Sampling
from llama_recipes_local.commands.generate.model_loading import load_model, load_tokenizer
from llama_recipes_local.commands.generate.model_source import ModelSource, find_source
from llama_recipes_local.commands.generate.stopping import find_stops
from llama_recipes_local.datasets.base import find_split
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.datasets.run_data import prepare_data
from llama_recipes_local.errors import Problem, refusal, refuse
from llama_recipes_local.model_folders import read_adapter_config
from llama_recipes_local.preflight.adapter_rules import check_attention
from llama_recipes_local.run import activate
from llama_recipes_local.run.record import describe
from llama_recipes_local.run.resolution import Run
from llama_recipes_local.storage.names import refuse_name
from llama_recipes_local.training.evaluation import perplexity
from llama_recipes_local.utils.dataset_utils import get_dataloader


def evaluate(
    *arguments: object,
    adapter: str = "",
    metrics: str | tuple[str, ...] = "",
    out: str = "evaluation.json",
    compare: str = "",
    batch_size: int = 8,
    max_new_tokens: int = 100,
    max_examples: int = 0,
    **flags: Any,
) -> None:
    """Measure a model on a data set's validation part. Takes the flags of finetuning.py too.

    The data set and its flags are those that the adapter's run recorded, unless overridden.

    Args:
        *arguments: with --compare, the second file.
        adapter: folder of a saved adapter; without it --model_name is a full model.
        metrics: comma-separated: loss, perplexity, gleu (grammar), rouge (summaries); empty means
            the loss, the perplexity and the data set's own metric.
        out: the JSON file to write.
        compare: two such files to compare: --compare A.json B.json.
        batch_size: prompts that are completed at a time.
        max_new_tokens: maximum length of an answer, in tokens.
        max_examples: maximum number of prompts; 0 means all.
        **flags: those of finetuning.py, --dataset and --model_name among them.

    Raises:
        UsageError: if a flag is wrong, or the model or the data cannot be used.
    """
    extras.require("scipy", "evaluate", "evaluate")
    _check_values({"adapter": adapter, "out": out, "compare": compare})
    if compare:
        compare_files(*_two_files(compare, arguments, flags))
        return
    folder = Path(str(adapter)).expanduser().resolve() if adapter else None
    _check_numbers(batch_size, max_new_tokens, max_examples)
    result_file = _result_file(out)
    run = resolve_run(arguments, folder, flags)
    asked = _choose_metrics(metrics, run.train.dataset)
    tokenizer_folder = Path(run.train.tokenizer_name or run.train.model_name)
    source = find_source(folder, Path(run.train.model_name), tokenizer_folder)
    if set(asked) & set(loss_metrics()):
        _check_attention(run, source)
    result = Result({"adapter": str(folder or ""), **describe(run)}, asked)
    with activate(run):
        _measure(run, source, result, batch_size, max_new_tokens, max_examples)
    _report(result, result_file)


def _measure(
    run: Run, source: ModelSource, result: Result, batch_size: int, length: int, most: int
) -> None:
    """Fill a result with the model's losses on, and answers to, the validation part."""
    assert run.dataset is not None
    tokenizer = load_tokenizer(source)
    generating = set(answer_metrics()) & set(result.asked)
    asked: list[Question] = []
    if generating:
        split = find_split(DATASETS[run.train.dataset], run.dataset, "test")
        assert split is not None  # or the metric would have been refused
        asked = questions(split, tokenizer, most)
        _check_sources(asked, result.asked)
    losses = set(loss_metrics()) & set(result.asked)
    as_training: dict[str, float] = {}
    if losses:
        run.data = prepare_data(run, ("test",))
    model = load_model(source)
    if losses:
        batches = get_dataloader(tokenizer, run.dataset, run.train, "test")
        loss, documents = measure_loss(model, run.train, tqdm(batches, "loss", leave=False))
        result.documents = documents.records()
        as_training = {"loss": loss, "perplexity": perplexity(loss)}
    if generating:
        generator = Generator(model, tokenizer)
        result.answers = _answer(generator, asked, batch_size, length)
    for measure in result.measures():
        low, high = interval(measure)
        value = as_training.get(measure.name, measure.of_all())
        result.metrics[measure.name] = {"value": value, "low": low, "high": high}


def _answer(
    generator: Generator, asked: list[Question], batch_size: int, length: int
) -> list[Answer]:
    """Return the model's answers by greedy decoding, the longest prompts first."""
    sampling = Sampling(max_new_tokens=length)
    stops = find_stops(None, generator.tokenizer, generator.ends)
    by_length = sorted(range(len(asked)), key=lambda place: -len(asked[place].prompt))
    answers: dict[int, str] = {}
    with tqdm(total=len(asked), desc="answers", leave=False) as bar:
        for start in range(0, len(asked), batch_size):
            places = by_length[start : start + batch_size]
            prompts = [asked[place].prompt for place in places]
            for place, texts in zip(
                places, generator.complete(prompts, sampling, stops), strict=True
            ):
                answers[place] = texts[0].strip()
            bar.update(len(places))
    return [
        {
            "key": each.prompt,
            "source": each.source,
            "prediction": answers[place],
            "references": each.references,
        }
        for place, each in enumerate(asked)
    ]


def _choose_metrics(metrics: object, dataset: str) -> list[str]:
    """Return the names of the metrics: those given, or the data set's.

    Raises:
        UsageError: if a metric is unknown, a package is missing, or the data has no answers.
    """
    # fire parses several names as a tuple or a list, and a flag without a value as True
    named = metrics if isinstance(metrics, (tuple, list)) else str(metrics).split(",")
    asked = [str(name).strip() for name in named if str(name).strip()]
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


def _check_attention(run: Run, source: ModelSource) -> None:
    if source.adapter is None:
        return
    method = method_of_type(read_adapter_config(source.adapter)["peft_type"])
    if method is not None:
        what = f"--adapter {source.adapter}, which is {method.name}"
        refuse(check_attention(run, method, what))


def _check_sources(asked: list[Question], metrics: list[str]) -> None:
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


def _check_values(flags: Mapping[str, object]) -> None:
    # fire parses a flag without a value as True
    fix = "give a path after it, or leave it out"
    problems = [
        Problem(f"--{name} has no value", "it takes a path", fix)
        for name, value in flags.items()
        if value is True
    ]
    refuse(problems)


def _check_numbers(batch_size: object, max_new_tokens: object, max_examples: object) -> None:
    problems = [
        Problem(f"--{name} {value}", "it must be an integer above 0", f"--{name} 8")
        for name, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens))
        if type(value) is not int or value < 1
    ]
    if type(max_examples) is not int or max_examples < 0:
        why, fix = "it must be an integer; 0 means all", "--max_examples 100"
        problems.append(Problem(f"--max_examples {max_examples}", why, fix))
    refuse(problems)


def _result_file(out: str) -> Path:
    """Return the file that the result is saved to, checked before anything is measured.

    Raises:
        UsageError: if it cannot be written.
    """
    path = Path(str(out)).expanduser().resolve()
    refuse_name(path, "--out")
    why = ""
    if path.is_dir():
        why = f"{path} is a folder"
    elif not os.access(path.parent, os.W_OK):
        why = f"{path.parent} is not a writable folder"
    if why:
        raise refusal(f"--out {out}", why, "name a file: --out evaluation.json")
    return path


def _two_files(
    first: object, others: tuple[object, ...], flags: Mapping[str, object]
) -> tuple[Path, Path]:
    if len(others) != 1 or flags:
        given = " ".join([str(first), *map(str, others), *(f"--{name}" for name in flags)])
        fix = "--compare A.json B.json"
        raise refusal(f"--compare {given}", "it takes exactly two files", fix)
    return Path(str(first)).expanduser(), Path(str(others[0])).expanduser()


def _report(result: Result, path: Path) -> None:
    result.save(path)
    rows = [
        [name, f"{each['value']:.4f}", f"{each['low']:.4f} to {each['high']:.4f}"]
        for name, each in result.metrics.items()
    ]
    print(f"\n{table(rows, ['', 'value', '95% interval'])}")
    items = [f"{len(result.documents):,} documents"] * bool(result.documents)
    items += [f"{len(result.answers):,} answers"] * bool(result.answers)
    print(f"\n--> {', '.join(items)}; saved to {path}")

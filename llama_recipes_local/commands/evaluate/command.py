"""``llama-recipes-local evaluate``: measures a model, or compares two results."""

import os
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llama_recipes_local import extras
from llama_recipes_local.adapters.registry import method_of_type
from llama_recipes_local.commands.evaluate.bootstrap import interval
from llama_recipes_local.commands.evaluate.comparing import compare as compare_files
from llama_recipes_local.commands.evaluate.document_losses import measure_loss
from llama_recipes_local.commands.evaluate.questions import Question, questions
from llama_recipes_local.commands.evaluate.recorded_run import resolve_run
from llama_recipes_local.commands.evaluate.results import GENERATED, METRICS, Result, table
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

LOSSES = ("loss", "perplexity")
PACKAGES = {"gleu": "nltk", "rouge": "rouge_score"}


def evaluate(
    *arguments: Any,
    adapter: str = "",
    metrics: Any = "",
    out: str = "evaluation.json",
    compare: str = "",
    batch_size: int = 8,
    max_new_tokens: int = 100,
    max_examples: int = 0,
    **flags: Any,
) -> None:
    """Measure a model on a data set's validation part. Takes the flags of finetuning.py too.

    The data set and its flags are those that the adapter's run recorded, unless others are given.

    Args:
        *arguments: with --compare, the second file.
        adapter: the folder that training saved; without, --model_name is a whole model.
        metrics: of loss, perplexity, gleu (grammar) and rouge (summaries), with commas between;
            empty takes those that go with the data set.
        out: the JSON file that is written.
        compare: two such files, to tell how much the second is better: --compare A.json B.json.
        batch_size: how many prompts are completed at a time.
        max_new_tokens: how long an answer may be.
        max_examples: how many prompts are completed; 0 means all.
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
    kept = _place(out)
    run = resolve_run(arguments, folder, flags)
    asked = _choose(metrics, run.train.dataset)
    tokenizer_folder = Path(run.train.tokenizer_name or run.train.model_name)
    source = find_source(folder, Path(run.train.model_name), tokenizer_folder)
    if set(asked) & set(LOSSES):
        _check_kernel(run, source)
    result = Result({"adapter": str(folder or ""), **describe(run)}, asked)
    with activate(run):
        _measure(run, source, result, batch_size, max_new_tokens, max_examples)
    _report(result, kept)


def _measure(
    run: Run, source: ModelSource, result: Result, batch_size: int, length: int, most: int
) -> None:
    """Fill a result with what the model makes of the validation part."""
    assert run.dataset is not None
    tokenizer = load_tokenizer(source)
    generating = [name for name in result.asked if name in GENERATED]
    found: list[Question] = []
    if generating:
        split = find_split(DATASETS[run.train.dataset], run.dataset, "test")
        assert split is not None  # or the metric would have been refused
        found = questions(split, tokenizer, most)
        _check_sources(found, result.asked)
    losses = set(LOSSES) & set(result.asked)
    known: dict[str, float] = {}
    if losses:
        run.data = prepare_data(run, ("test",))
    model = load_model(source)
    if losses:
        batches = get_dataloader(tokenizer, run.dataset, run.train, "test")
        loss, documents = measure_loss(model, run.train, tqdm(batches, "loss", leave=False))
        result.documents = documents.records()
        known = {"loss": loss, "perplexity": perplexity(loss)}
    if generating:
        generator = Generator(model, tokenizer)
        result.answers = _answer(generator, found, batch_size, length)
    for measure in result.measures():
        low, high = interval(measure)
        value = known.get(measure.name, measure.of_all())
        result.metrics[measure.name] = {"value": value, "low": low, "high": high}


def _answer(
    generator: Generator, asked: list[Question], batch_size: int, length: int
) -> list[dict[str, Any]]:
    """Return what the model answers, the likeliest token each time."""
    sampling = Sampling(max_new_tokens=length)
    stops = find_stops(None, generator.tokenizer, generator.ends)
    by_length = sorted(range(len(asked)), key=lambda place: -len(asked[place].prompt))
    said: dict[int, str] = {}
    with tqdm(total=len(asked), desc="answers", leave=False) as bar:
        for start in range(0, len(asked), batch_size):
            places = by_length[start : start + batch_size]
            prompts = [asked[place].prompt for place in places]
            for place, texts in zip(
                places, generator.complete(prompts, sampling, stops), strict=True
            ):
                said[place] = texts[0].strip()
            bar.update(len(places))
    return [
        {
            "key": each.prompt,
            "source": each.source,
            "prediction": said[place],
            "references": each.references,
        }
        for place, each in enumerate(asked)
    ]


def _choose(metrics: Any, dataset: str) -> list[str]:
    """Return the metrics that are asked for, or those that go with the data set.

    Raises:
        UsageError: if there is no such metric, a package is missing, or the data has no answers.
    """
    # fire makes a tuple or a list of several names, and True of a flag that has none behind it
    named = metrics if isinstance(metrics, (tuple, list)) else str(metrics).split(",")
    asked = [str(name).strip() for name in named if str(name).strip()]
    asked = asked or [*LOSSES, *DATASETS[dataset].metrics]
    problems = [
        Problem(f"--metrics {name}", "there is none of this name", f"choose of {','.join(METRICS)}")
        for name in asked
        if name not in METRICS
    ]
    if set(asked) & set(GENERATED) and DATASETS[dataset].split is None:
        why = f"{dataset} does not tell prompts and responses apart"
        problems.append(Problem(f"--metrics {','.join(asked)}", why, "--metrics loss,perplexity"))
    refuse(problems)
    for name in asked:
        if name in PACKAGES:
            extras.require(PACKAGES[name], f"--metrics {name}", "evaluate")
    return asked


def _check_kernel(run: Run, source: ModelSource) -> None:
    if source.adapter is None:
        return
    method = method_of_type(read_adapter_config(source.adapter)["peft_type"])
    if method is not None:
        what = f"--adapter {source.adapter}, which is {method.name}"
        refuse(check_attention(run, method, what))


def _check_sources(asked: list[Question], metrics: list[str]) -> None:
    if "gleu" in metrics and not all(each.source for each in asked):
        raise refusal(
            "--metrics gleu with this data set",
            "it compares a correction with the text that was corrected, which cannot be told here",
            "leave it out, or take grammar_dataset with files of your own: "
            "--grammar_dataset.test_split=FILE.csv",
        )


def _check_values(flags: dict[str, Any]) -> None:
    # fire makes True of a flag that nothing follows
    fix = "give it the path behind it, or leave it out"
    problems = [
        Problem(f"--{name} has no value", "it takes a path", fix)
        for name, value in flags.items()
        if value is True
    ]
    refuse(problems)


def _check_numbers(batch_size: Any, max_new_tokens: Any, max_examples: Any) -> None:
    problems = [
        Problem(f"--{name} {value}", "it is a number above 0", f"give one: --{name} 8")
        for name, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens))
        if type(value) is not int or value < 1
    ]
    if type(max_examples) is not int or max_examples < 0:
        why, fix = "it is a number, and 0 means all", "give one: --max_examples 100"
        problems.append(Problem(f"--max_examples {max_examples}", why, fix))
    refuse(problems)


def _place(out: Any) -> Path:
    """Return where the result is kept, which is asked before anything is measured.

    Raises:
        UsageError: if nothing can be written there.
    """
    path = Path(str(out)).expanduser().resolve()
    refuse_name(path, "--out")
    why = ""
    if path.is_dir():
        why = f"{path} is a folder"
    elif not os.access(path.parent, os.W_OK):
        why = f"{path.parent} is no folder that can be written to"
    if why:
        raise refusal(f"--out {out}", why, "name a file: --out evaluation.json")
    return path


def _two_files(first: Any, others: tuple[Any, ...], flags: dict[str, Any]) -> tuple[Path, Path]:
    if len(others) != 1 or flags:
        given = " ".join([str(first), *map(str, others), *(f"--{name}" for name in flags)])
        fix = "--compare A.json B.json"
        raise refusal(f"--compare {given}", "it takes two files and no more", fix)
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
    print(f"\n--> of {' and '.join(items)}; kept in {path}")

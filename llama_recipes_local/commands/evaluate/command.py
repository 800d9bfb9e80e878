"""``llama-recipes-local evaluate``: measures a model, or compares two results."""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llama_recipes_local import extras
from llama_recipes_local.answers.generator import Generator, Sampling
from llama_recipes_local.answers.measures import perplexity
from llama_recipes_local.answers.model_loading import (
    load_model,
    load_tokenizer,
    vocabulary_and_positions,
)
from llama_recipes_local.answers.model_source import ModelSource, find_source
from llama_recipes_local.answers.questions import Question, questions
from llama_recipes_local.answers.stopping import find_stops
from llama_recipes_local.commands.evaluate.benchmark import Benchmark, measure_benchmark
from llama_recipes_local.commands.evaluate.bootstrap import interval
from llama_recipes_local.commands.evaluate.comparing import compare as compare_files
from llama_recipes_local.commands.evaluate.document_losses import measure_loss
from llama_recipes_local.commands.evaluate.flag_checks import (
    choose_metrics,
    compared_files,
    refuse_attention,
    refuse_benchmark_flags,
    refuse_missing_sources,
    refuse_numbers,
    refuse_unknown_tokens,
    result_file,
)
from llama_recipes_local.commands.evaluate.gguf_model import OpenedFile, gguf_file, opened
from llama_recipes_local.commands.evaluate.metrics import (
    Answer,
    answer_metrics,
    loss_metrics,
)
from llama_recipes_local.commands.evaluate.recorded_run import resolve_run
from llama_recipes_local.commands.evaluate.results import Result, table
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.datasets.base import find_split
from llama_recipes_local.datasets.prompt_template import PromptTemplate
from llama_recipes_local.datasets.registry import DATASETS
from llama_recipes_local.datasets.run_data import prepare_data
from llama_recipes_local.datasets.token_ids import text_ids
from llama_recipes_local.errors import caught, refuse
from llama_recipes_local.preflight.model import UNNAMED
from llama_recipes_local.run import Run, activate
from llama_recipes_local.run.record import describe
from llama_recipes_local.utils.dataset_utils import get_dataloader

LONGEST_ANSWER = 100
"""Tokens, unless ``--max_new_tokens`` says it."""


def evaluate(args: argparse.Namespace) -> None:
    """Measure a model on validation data or a benchmark, or compare two results.

    Args:
        args: the flags of the command; ``flags`` are those of finetuning.py, and ``arguments`` the
            words without a flag.

    Raises:
        UsageError: if a flag is wrong, or the model or the data cannot be used.
    """
    own = {name: getattr(args, name) for name in ("metrics", "compare", "max_new_tokens")}
    if args.max_new_tokens is None:
        args.max_new_tokens = LONGEST_ANSWER
    refuse_numbers(args.batch_size, args.max_new_tokens, args.max_examples)
    if args.benchmark is not None:
        others = {name: value for name, value in own.items() if value is not None}
        measure_benchmark(_benchmark(args), args.arguments, others | args.flags)
        return
    refuse_benchmark_flags(
        benchmark_path=args.benchmark_path, num_fewshot=args.num_fewshot, json=args.json
    )
    extras.require("scipy", "evaluate", "evaluate")
    if args.compare:
        compare_files(*compared_files(args.compare, args.arguments, args.flags))
    else:
        _evaluate_model(args)


def _benchmark(args: argparse.Namespace) -> Benchmark:
    return Benchmark(
        name=args.benchmark,
        path=args.benchmark_path,
        shots=args.num_fewshot,
        adapter=args.adapter,
        batch_size=args.batch_size,
        most=args.max_examples,
        saved_to=result_file(args.out),
        as_json=args.json,
    )


def _evaluate_model(args: argparse.Namespace) -> None:
    """Measure a model on a data set's validation part.

    The data set and its flags are those that the adapter's run recorded, unless overridden.
    """
    adapter = args.adapter.expanduser().resolve() if args.adapter else None
    saved_to = result_file(args.out)
    with _opened(args.arguments, adapter, args.flags) as file:
        of_file = {"model_name": str(file.folder)} if file is not None else {}
        run = resolve_run(args.arguments, adapter, args.flags | of_file)
        metrics = choose_metrics(args.metrics, run.train.dataset)
        if (most := run.train.max_eval_step) and "max_eval_step" not in args.flags:
            print(f"--> the loss is of {most} batches, as in the run: --max_eval_step 0 takes all")
        about = {"adapter": str(adapter or ""), **describe(run)}
        if file is not None:
            file.write_weights()
            about[type(run.train).__name__]["model_name"] = str(file.path)
        source = _source(run, adapter)
        if set(metrics) & set(loss_metrics()):
            refuse_attention(run, source)
        result = Result(about, metrics)
        with activate(run):
            _measure(run, source, result, args.batch_size, args.max_new_tokens, args.max_examples)
    _report(result, saved_to)


def _source(run: Run, adapter: Path | None) -> ModelSource:
    model = Path(run.train.model_name)
    tokenizer = Path(run.train.tokenizer_name or model)
    return find_source(adapter, model, tokenizer, allow_other_base=run.train.allow_other_base)


@contextmanager
def _opened(
    arguments: tuple[object, ...], adapter: Path | None, flags: dict[str, Any]
) -> Iterator[OpenedFile | None]:
    """Open the GGUF file that ``--model_name`` names, if it names one.

    Raises:
        UsageError: if it cannot be used, with what else is wrong.
    """
    path = gguf_file(flags)
    if path is None:
        yield None
        return
    with ExitStack() as stack:
        with caught() as problems:
            file = stack.enter_context(opened(path, adapter))
        if problems:
            others = {name: value for name, value in flags.items() if name != "model_name"}
            with caught() as found:
                resolve_run(arguments, adapter, others)
            refuse([*problems, *(each for each in found if each.what != UNNAMED)])
        yield file


def _measure(
    run: Run, source: ModelSource, result: Result, batch_size: int, length: int, most: int
) -> None:
    """Fill a result with the model's losses on, and answers to, the validation part."""
    assert run.dataset is not None
    tokenizer = load_tokenizer(source)
    rows, _ = vocabulary_and_positions(source)
    generating = set(answer_metrics()) & set(result.asked)
    asked: list[Question] = []
    template: PromptTemplate | None = None
    if generating:
        split = find_split(DATASETS[run.train.dataset], run.dataset, "test", tokenizer)
        assert split is not None  # or the metric would have been refused
        asked = questions(split, tokenizer, most)
        template = split.formatter.prompt_template(tokenizer)
        refuse_missing_sources(asked, result.asked)
        ids = text_ids(tokenizer, [each.prompt for each in asked])
        refuse_unknown_tokens({token for each in ids for token in each}, tokenizer, rows)
    losses = set(loss_metrics()) & set(result.asked)
    as_training: dict[str, float] = {}
    if losses:
        run.data = prepare_data(run, ("test",))
        tokenized = [each for each in run.data.splits.values() if isinstance(each, TokenRows)]
        for part in tokenized:
            refuse_unknown_tokens(part.tokens(len(tokenizer)), tokenizer, rows)
    model = load_model(source)
    if losses:
        batches = get_dataloader(tokenizer, run.dataset, run.train, "test")
        shown = tqdm(batches, "loss", leave=False, disable=None)  # in a terminal
        loss, documents = measure_loss(model, run.train, shown)
        result.documents = documents.records()
        as_training = {"loss": loss, "perplexity": perplexity(loss)}
    if generating:
        generator = Generator(model, tokenizer)
        result.answers = _answer(generator, asked, template, batch_size, length)
    for measure in result.measures():
        low, high = interval(measure)
        value = as_training.get(measure.name, measure.of_all())
        result.metrics[measure.name] = {"value": value, "low": low, "high": high}


def _answer(
    generator: Generator,
    asked: list[Question],
    template: PromptTemplate | None,
    batch_size: int,
    length: int,
) -> list[Answer]:
    """Return the model's answers by greedy decoding, the longest prompts first."""
    sampling = Sampling(max_new_tokens=length)
    stops = find_stops(template, generator.tokenizer, generator.ends)
    by_length = sorted(range(len(asked)), key=lambda place: -len(asked[place].prompt))
    answers: dict[int, tuple[str, bool]] = {}
    with tqdm(total=len(asked), desc="answers", leave=False, disable=None) as bar:
        for start in range(0, len(asked), batch_size):
            places = by_length[start : start + batch_size]
            prompts = [asked[place].prompt for place in places]
            for place, texts in zip(
                places, generator.complete_and_tell(prompts, sampling, stops), strict=True
            ):
                answers[place] = texts[0]
            bar.update(len(places))
    return [
        {
            "key": each.prompt,
            "source": each.source,
            "prediction": answers[place][0].strip(),
            "references": each.references,
            "ended": answers[place][1],
        }
        for place, each in enumerate(asked)
    ]


def _report(result: Result, path: Path) -> None:
    replaced = " (what was there is replaced)" if path.exists() else ""
    result.save(path)
    rows = [
        [name, f"{each['value']:.4f}", f"{each['low']:.4f} to {each['high']:.4f}"]
        for name, each in result.metrics.items()
    ]
    print(f"\n{table(rows, ['', 'value', '95% interval'])}")
    items = [f"{len(result.documents):,} documents"] * bool(result.documents)
    if result.answers:
        ended = sum(each.get("ended", False) for each in result.answers)
        share = f"{ended / len(result.answers):.1%} of them ended by themselves"
        items.append(f"{len(result.answers):,} answers ({share})")
    print(f"\n--> {', '.join(items)}; saved to {path}{replaced}")

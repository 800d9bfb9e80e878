"""``evaluate --benchmark``: a benchmark from local files, with the scores of lm-eval."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from llama_recipes_local.answers.generator import Generator, Sampling
from llama_recipes_local.answers.model_loading import (
    load_model,
    load_tokenizer,
    vocabulary_and_positions,
)
from llama_recipes_local.answers.model_source import ModelSource, find_source
from llama_recipes_local.answers.stopping import Stops
from llama_recipes_local.benchmark_tasks.forgetting_texts import FORGETTING
from llama_recipes_local.benchmark_tasks.likeliest_letters import Choices
from llama_recipes_local.benchmark_tasks.local_files import BenchmarkFiles
from llama_recipes_local.benchmark_tasks.prompts import Asked, asked
from llama_recipes_local.benchmark_tasks.scores import Score, pooled, score
from llama_recipes_local.benchmark_tasks.solutions import ENDS, LONGEST
from llama_recipes_local.benchmark_tasks.tasks import TASKS, Task
from llama_recipes_local.commands.evaluate.flag_checks import refuse_unknown_tokens
from llama_recipes_local.commands.evaluate.forgetting import measure_forgetting
from llama_recipes_local.commands.evaluate.gguf_model import gguf_file, opened
from llama_recipes_local.commands.evaluate.metrics import BENCHMARK_METRICS, Answer
from llama_recipes_local.commands.evaluate.results import Result, table
from llama_recipes_local.console import data_output
from llama_recipes_local.datasets.token_ids import begun, text_ids
from llama_recipes_local.errors import Problem, caught, refusal, refuse
from llama_recipes_local.messages import join_names

MODEL_FLAGS = ("model_name", "tokenizer_name", "allow_other_base", "quantization")
"""The flags of finetuning.py that have a meaning here."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to measure.

    Attributes:
        name: of ``TASKS``, or ``FORGETTING``.
        path: the folder of its files; None if it was not named.
        shots: examples in a prompt; None means as lm-eval.
        adapter: folder of a saved adapter.
        batch_size: prompts at a time.
        most: questions of a subject; 0 means all.
        saved_to: the JSON file to write.
        as_json: whether the result is printed as JSON.
    """

    name: str
    path: Path | None
    shots: int | None
    adapter: Path | None
    batch_size: int
    most: int
    saved_to: Path
    as_json: bool = False


def measure_benchmark(given: Benchmark, words: Sequence[object], flags: Mapping[str, Any]) -> None:
    """Measure a model, save the result and print it.

    Args:
        given: what to measure.
        words: those of the command line without a flag, which are refused.
        flags: other flags, of finetuning.py too.

    Raises:
        UsageError: if a flag is wrong, or the model or the files cannot be used.
    """
    problems = _others(words, flags)
    with caught() as of_task:
        prepared = _Prepared(given) if given.name != FORGETTING else None
        refuse(_beside_forgetting(given) if prepared is None else [])
    with ExitStack() as stack:
        file = source = None
        with caught() as of_model:
            if (path := gguf_file(dict(flags))) is not None:
                file = stack.enter_context(opened(path, given.adapter))
            else:
                source = _source(given.adapter, flags)
        refuse([*problems, *of_task, *of_model])
        with redirect_stdout(sys.stderr if given.as_json else sys.stdout):
            if file is not None:
                file.write_weights()
                source = _source(None, {**flags, "model_name": str(file.folder)})
            assert source is not None
            about = _about(given, source) | ({"model_name": str(path)} if path else {})
            if prepared is None:
                result = Result(about, ["perplexity"])
                text = _forgetting_table(measure_forgetting(source, result))
            else:
                result, text = prepared.measure(source, about)
    result.save(given.saved_to)
    if given.as_json:
        with data_output():
            print(json.dumps({"about": result.about, "scores": result.parts}, ensure_ascii=False))
    else:
        print(f"\n{text}\n\n--> saved to {given.saved_to}")


class _Prepared:
    """A benchmark with questions, its files read."""

    def __init__(self, given: Benchmark) -> None:
        """Read the files.

        Raises:
            UsageError: if they cannot be used.
        """
        self._given = given
        self._task = TASKS[given.name]
        self._shots = self._task.shots if given.shots is None else given.shots
        self._files = _files(self._task, given.path)
        refuse(self._files.check_examples(self._shots))
        self._questions = asked(self._task, self._files, self._shots, given.most)

    def measure(self, source: ModelSource, about: dict[str, Any]) -> tuple[Result, str]:
        """Return the result, and what is printed of it."""
        task, files = self._task, self._files
        tokenizer = load_tokenizer(source)
        about = about | {"num_fewshot": self._shots, "files": files.hashes()}
        if files.missing:
            about["missing"] = files.missing
            note = f"--> {len(files.missing)} subjects are not there: {join_names(files.missing)}"
            print(note, file=sys.stderr)
        result = Result(about, _metrics(task))
        answers = _choose if task.has_choices else _solve
        result.answers = answers(self._questions, source, tokenizer, self._given.batch_size)
        scored = {
            name: _scores(name, task, files, self._questions, result) for name in result.asked
        }
        for name, scores in scored.items():
            result.metrics[name] = {"value": scores[0].value, "stderr": scores[0].stderr}
            result.parts[name] = [asdict(each) for each in scores]
        tables = (
            table([_row(each) for each in scores], [name, "questions", "value", "stderr"])
            for name, scores in scored.items()
        )
        noun = f"{self._shots} examples in a prompt"
        return result, "\n\n".join([*tables, f"{task.title}, {noun}"])


def _beside_forgetting(given: Benchmark) -> list[Problem]:
    flags = {
        "benchmark_path": given.path,
        "num_fewshot": given.shots,
        "max_examples": given.most or None,
    }
    why = "its texts come with this package, and all of them are read"
    return [
        Problem(f"--{name} with --benchmark {FORGETTING}", why, "leave it out")
        for name, value in flags.items()
        if value is not None
    ]


def _forgetting_table(rows: list[list[str]]) -> str:
    known = len(rows[0]) > 2
    headers = ["perplexity", "before", "after", "change"] if known else ["perplexity", "now"]
    note = "the model before training is not known, or is not there any more"
    return table(rows, headers) + ("" if known else f"\n({note}: measure it by itself)")


def _others(words: Sequence[object], flags: Mapping[str, Any]) -> list[Problem]:
    given = [*map(str, words), *(f"--{name}" for name in flags if name not in MODEL_FLAGS)]
    return [
        Problem(
            f"{each} with --benchmark",
            "a benchmark has its own prompts and scores, and nothing is trained",
            f"leave it out; of finetuning.py's flags it takes --{', --'.join(MODEL_FLAGS)}",
        )
        for each in given
    ]


def _files(task: Task, path: Path | None) -> BenchmarkFiles:
    if path is None:
        raise refusal(
            f"the files of {task.title} are not named",
            "nothing is fetched",
            f"--benchmark_path DIR: {task.published}",
        )
    return BenchmarkFiles(task, path.expanduser().resolve())


def _source(adapter: Path | None, flags: Mapping[str, Any]) -> ModelSource:
    model, tokenizer = (flags.get(name) for name in ("model_name", "tokenizer_name"))
    return find_source(
        adapter,
        Path(str(model)) if model else None,
        Path(str(tokenizer)) if tokenizer else None,
        quantization=flags.get("quantization"),
        allow_other_base=bool(flags.get("allow_other_base", False)),
    )


def _metrics(task: Task) -> list[str]:
    return [name for name in BENCHMARK_METRICS if (name == "acc") == task.has_choices]


def _about(given: Benchmark, source: ModelSource) -> dict[str, Any]:
    return {
        "benchmark": given.name,
        "benchmark_path": str(given.path or ""),
        "max_examples": given.most,
        "adapter": str(source.adapter or ""),
        "model_name": str(source.model),
        "tokenizer_name": str(source.tokenizer),
        "dtype": str(source.dtype).removeprefix("torch."),
        "quantization": source.quantization,
    }


def _choose(
    questions: Sequence[Asked],
    source: ModelSource,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
) -> list[Answer]:
    """Return the likeliest letter of each question."""
    rows, positions = vocabulary_and_positions(source)
    choices = Choices(tokenizer, [each.prompt for each in questions], positions)
    refuse_unknown_tokens(choices.tokens(), tokenizer, rows)
    if choices.truncated:
        print(
            f"--> {choices.truncated:,} prompts are longer than the model's {positions:,} "
            "positions, and lose their beginning, as in lm-eval",
            file=sys.stderr,
        )
    padding = tokenizer.pad_token_id
    letters = choices.answers(load_model(source), batch_size, int(padding))
    return [_answer(each, letter) for each, letter in zip(questions, letters, strict=True)]


def _solve(
    questions: Sequence[Asked],
    source: ModelSource,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
) -> list[Answer]:
    """Return the model's solutions by greedy decoding, of the longest prompts first."""
    rows, positions = vocabulary_and_positions(source)
    texts = [begun(each.prompt, tokenizer) for each in questions]
    ids = text_ids(tokenizer, texts)
    refuse_unknown_tokens({token for each in ids for token in each}, tokenizer, rows)
    longest = max(map(len, ids))
    if positions is not None and longest + LONGEST > positions:
        what = f"a prompt has {longest:,} tokens, and a solution up to {LONGEST}"
        why = f"the model has {positions:,} positions (max_position_embeddings)"
        raise refusal(what, why, "take fewer examples: --num_fewshot 1")
    generator = Generator(load_model(source), tokenizer, configured=True)  # as in lm-eval
    end = tokenizer.eos_token_id
    stops = Stops((*generator.ends, *([] if end is None else [end])), ENDS)
    sampling = Sampling(max_new_tokens=LONGEST, repetition_penalty=None)
    order = sorted(range(len(texts)), key=lambda place: -len(ids[place]))
    found: dict[int, str] = {}
    with tqdm(total=len(texts), desc="solutions", leave=False, disable=None) as bar:
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            completed = generator.complete([texts[place] for place in places], sampling, stops)
            found |= {place: each[0] for place, each in zip(places, completed, strict=True)}
            bar.update(len(places))
    return [_answer(each, found[place]) for place, each in enumerate(questions)]


def _answer(question: Asked, prediction: str) -> Answer:
    return {
        "key": question.key,
        "source": "",
        "prediction": prediction,
        "references": [question.answer],
    }


def _scores(
    metric: str,
    task: Task,
    files: BenchmarkFiles,
    questions: Sequence[Asked],
    result: Result,
) -> list[Score]:
    """Return the score of all questions, of each group and of each subject."""
    (measure,) = BENCHMARK_METRICS[metric].measures(result.answers)
    right: dict[str, list[bool]] = {subject: [] for subject in files.subjects}
    for each, part in zip(questions, measure.parts, strict=True):
        right[each.subject].append(bool(part[0]))
    subjects = {name: score(name, found) for name, found in right.items()}
    if len(subjects) == 1:
        return [*subjects.values()]
    groups = {
        group: [subjects[name] for name in names if name in subjects]
        for group, names in task.groups.items()
    }
    of_groups = [pooled(f"({group})", scores) for group, scores in groups.items() if scores]
    return [pooled(task.title, subjects.values()), *of_groups, *subjects.values()]


def _row(scored: Score) -> list[str]:
    error = "" if scored.stderr is None else f"{scored.stderr:.4f}"
    return [scored.name, f"{scored.questions:,}", f"{scored.value:.4f}", error]

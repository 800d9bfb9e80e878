"""The prompts of a benchmark, as lm-eval writes them: a description, examples, the question."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llama_recipes_local.benchmark_tasks.local_files import BenchmarkFiles, Item
from llama_recipes_local.benchmark_tasks.tasks import LETTERS, Task

_SEED = 1234
"""lm-eval's, which draws GSM8K's examples for each question."""


@dataclass(frozen=True)
class Asked:
    """A question as it is asked.

    Attributes:
        key: the same for the same question in every result.
        subject: its subject.
        prompt: the text, without a begin token.
        answer: the right letter, or the solution.
    """

    key: str
    subject: str
    prompt: str
    answer: str


def asked(task: Task, files: BenchmarkFiles, shots: int, most: int) -> list[Asked]:
    """Return all questions.

    Args:
        task: the benchmark.
        files: its files.
        shots: examples in a prompt.
        most: questions of a subject; 0 means all.
    """
    return [each for subject in files.subjects for each in _of(task, files, subject, shots, most)]


def _of(task: Task, files: BenchmarkFiles, subject: str, shots: int, most: int) -> Iterator[Asked]:
    items = files.items(subject, task.split)[: most or None]
    examples = files.items(subject, task.examples) if shots else []
    drawn = _drawn(task, examples, shots)
    start = task.description.format(task.subjects[subject])
    for number, (item, shown) in enumerate(zip(items, drawn, strict=False)):
        solved = "".join(f"{_question(task, each)} {each.answer}\n\n" for each in shown)
        digest = hashlib.sha256(item.question.encode()).hexdigest()[:8]
        prompt = start + solved + _question(task, item)
        yield Asked(f"{subject} {number} {digest}", subject, prompt, item.answer)


def _drawn(task: Task, examples: Sequence[Item], shots: int) -> Iterator[Sequence[Item]]:
    """Yield each prompt's examples: the first ones, or random ones for a task without choices."""
    draw = random.Random(_SEED)
    while True:
        yield examples[:shots] if task.has_choices else draw.sample(list(examples), shots)


def _question(task: Task, item: Item) -> str:
    if not task.has_choices:
        return f"Question: {item.question}\nAnswer:"
    choices = "".join(
        f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, item.choices, strict=True)
    )
    return f"{item.question.strip()}\n{choices}{task.asks}"

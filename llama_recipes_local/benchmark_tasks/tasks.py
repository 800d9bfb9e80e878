"""The benchmarks of ``evaluate --benchmark``: which files, which prompts, which scores.

A benchmark is a line in ``TASKS``. Prompts and numbers of examples are those of lm-eval 0.4's tasks
``mmlu``, ``ceval-valid``, ``cmmlu`` and ``gsm8k``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from llama_recipes_local.benchmark_tasks.subjects import CEVAL, CMMLU, MMLU

LETTERS = "ABCD"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A benchmark.

    Attributes:
        title: its name in messages.
        groups: names of the subjects by subject, by group; one without a name for a benchmark
            without subjects.
        split: the part that is measured.
        examples: the part whose first rows are examples in a prompt.
        shots: how many examples a prompt has, unless ``--num_fewshot`` says it.
        columns: what the files call the question and its answer.
        description: what a prompt begins with; ``{}`` is the subject's name.
        asks: what stands before the answer.
        headers: whether its csv files name their columns.
        published: where it is to be had, for messages.
    """

    title: str
    groups: Mapping[str, Mapping[str, str]]
    split: str
    examples: str
    shots: int
    columns: tuple[str, str]
    description: str = ""
    asks: str = ""
    headers: bool = True
    published: str = ""

    @property
    def subjects(self) -> dict[str, str]:
        """Return the names of all subjects by subject."""
        return {name: said for group in self.groups.values() for name, said in group.items()}

    @property
    def has_choices(self) -> bool:
        """Return whether an answer is one of four letters; otherwise it is generated."""
        return bool(self.asks)


TASKS = {
    "mmlu": Task(
        title="MMLU",
        groups=MMLU,
        split="test",
        examples="dev",
        shots=0,
        columns=("question", "answer"),
        description="The following are multiple choice questions (with answers) about {}.\n\n",
        asks="Answer:",
        headers=False,
        published="a clone of cais/mmlu, or the authors' data.tar, unpacked",
    ),
    "ceval": Task(
        title="C-Eval",
        groups=CEVAL,
        split="val",
        examples="dev",
        shots=0,
        columns=("question", "answer"),
        description="以下是中国关于{}的单项选择题，请选出其中的正确答案。\n\n",  # noqa: RUF001
        asks="答案：",  # noqa: RUF001
        published="a clone of ceval/ceval-exam, or its ceval-exam.zip, unpacked",
    ),
    "cmmlu": Task(
        title="CMMLU",
        groups=CMMLU,
        split="test",
        examples="dev",
        shots=0,
        columns=("Question", "Answer"),
        description="以下是关于{}的单项选择题，请直接给出正确答案的选项。\n\n",  # noqa: RUF001
        asks="答案：",  # noqa: RUF001
        published="the file cmmlu_v1_0_1.zip of haonan-li/cmmlu, unpacked",
    ),
    "gsm8k": Task(
        title="GSM8K",
        groups={"": {"main": ""}},
        split="test",
        examples="train",
        shots=5,
        columns=("question", "answer"),
        published="a clone of openai/gsm8k, or of openai/grade-school-math",
    ),
}

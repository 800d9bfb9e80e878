"""Benchmarks' files in the layouts that they are published in."""

from pathlib import Path

import made_benchmarks as made
import pytest

from llama_recipes_local.benchmark_tasks.local_files import BenchmarkFiles
from llama_recipes_local.benchmark_tasks.prompts import asked
from llama_recipes_local.benchmark_tasks.tasks import TASKS
from llama_recipes_local.errors import UsageError

ENGLISH = {
    name: {"dev": made.questions(name, "dev", 5), "test": made.questions(name, "test", 6)}
    for name in ("anatomy", "us_foreign_policy")
}
CHINESE = {
    name: {part: made.questions(name, part, 6, True) for part in ("dev", "val", "test")}
    for name in ("law", "accountant")
}
SOLVED = {part: made.solutions(part, 9) for part in ("train", "test")}


def same(task: str, folders: list[Path], shots: int) -> list[str]:
    """Return the prompts of a benchmark, which are the same in each folder."""
    known = TASKS[task]
    found = [asked(known, BenchmarkFiles(known, each), shots, 0) for each in folders]
    assert all(each == found[0] for each in found)
    return [each.prompt for each in found[0]]


def test_mmlu_is_read_from_parquet_and_from_csv_without_a_header(tmp_path: Path) -> None:
    clone = made.hub_clone(tmp_path / "clone", ENGLISH)
    made.hub_clone(clone, {"all": ENGLISH["anatomy"], "auxiliary_train": ENGLISH["anatomy"]})
    archive = made.archive(tmp_path / "data", ENGLISH, (), "_{}")
    prompts = same("mmlu", [clone, archive, tmp_path / "data"], 5)
    assert len(prompts) == 12
    first = prompts[6]
    begin = "The following are multiple choice questions (with answers) about us foreign policy."
    assert first.startswith(begin + "\n\nA box holds ")
    assert first.count("\nAnswer: ") == 5
    assert first.endswith("\nAnswer:")
    assert "\n\n A box" not in first


def test_mmlu_is_read_from_files_of_all_subjects(tmp_path: Path) -> None:
    clone = made.hub_clone(tmp_path / "clone", ENGLISH)
    together = {
        part: [
            row | {"subject": subject} for subject, parts in ENGLISH.items() for row in parts[part]
        ]
        for part in ("dev", "test")
    }
    alone = made.hub_clone(tmp_path / "alone", {"all": together})
    assert len(same("mmlu", [clone, alone], 5)) == 12
    found = BenchmarkFiles(TASKS["mmlu"], alone)
    assert list(found.hashes()) == [
        f"all/{part}-00000-of-00001.parquet" for part in ("dev", "test")
    ]
    assert found.subjects == ["anatomy", "us_foreign_policy"] and len(found.missing) == 55
    assert found.check_examples(6)
    for number, wrong in enumerate(("alchemy", ["anatomy"])):
        rows = [row | {"subject": wrong} for row in together["test"]]
        other = made.hub_clone(tmp_path / str(number), {"all": {**together, "test": rows}})
        with pytest.raises(UsageError, match="row 1 of ") as caught:
            BenchmarkFiles(TASKS["mmlu"], other)
        assert repr(wrong) in str(caught.value)


def test_chinese_ones_are_read_from_parquet_and_from_csv(tmp_path: Path) -> None:
    clone = made.hub_clone(tmp_path / "clone", CHINESE, spread=True)
    archive = made.archive(tmp_path / "archive", CHINESE, ("question", "answer"), "_{}")
    prompts = same("ceval", [clone, archive], 0)
    assert prompts[0].startswith("以下是中国关于法学的单项选择题，请选出其中的正确答案。\n\n盒子")  # noqa: RUF001
    assert prompts[0].endswith("\n答案：")  # noqa: RUF001
    other = {"agronomy": CHINESE["law"]}
    folder = made.archive(tmp_path / "cmmlu", other, ("Question", "Answer"))
    (prompt, *_) = same("cmmlu", [folder], 0)
    assert prompt.startswith("以下是关于农学的单项选择题，请直接给出正确答案的选项。\n\n")  # noqa: RUF001


def test_gsm8k_is_read_from_parquet_and_from_json_lines(tmp_path: Path) -> None:
    clone = made.hub_clone(tmp_path / "clone", {"main": SOLVED, "socratic": SOLVED})
    for part, rows in SOLVED.items():
        made.json_lines(tmp_path / "grade_school_math" / "data" / f"{part}.jsonl", rows)
        made.json_lines(tmp_path / "grade_school_math" / "data" / f"{part}_socratic.jsonl", rows)
    prompts = same("gsm8k", [clone, tmp_path / "grade_school_math"], 5)
    assert len(prompts) == 9
    assert prompts[0].count("Question: ") == 6
    assert prompts[0].count("\n#### ") == 5
    assert prompts[0].endswith("\nAnswer:")
    examples = {prompt.rpartition("Question:")[0] for prompt in prompts}
    assert len(examples) == 9  # drawn for each question


def problems(task: str, folder: Path, shots: int = 0) -> str:
    with pytest.raises(UsageError) as caught:
        files = BenchmarkFiles(TASKS[task], folder)
        if found := files.check_examples(shots):
            raise UsageError(found)
        asked(TASKS[task], files, shots, 0)
    return str(caught.value)


def test_what_is_no_benchmark_is_refused_by_name(tmp_path: Path) -> None:
    assert "it is not there" in problems("mmlu", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "it has no test part" in problems("mmlu", tmp_path / "empty")
    (tmp_path / "empty" / "cmmlu_v1_0_1.zip").write_bytes(b"PK")
    assert "unpack it: unzip " in problems("cmmlu", tmp_path / "empty")
    clone = made.hub_clone(tmp_path / "clone", ENGLISH)
    assert "the dev part has fewer: anatomy" in problems("mmlu", clone, 6)
    pointer = clone / "anatomy" / "test-00000-of-00001.parquet"
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "is a pointer of Git LFS" in problems("mmlu", clone)


def test_the_same_part_in_two_layouts_is_refused(tmp_path: Path) -> None:
    made.hub_clone(tmp_path, ENGLISH)
    made.archive(tmp_path / "data", ENGLISH, (), "_{}")
    assert "the dev part is there twice" in problems("mmlu", tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"answer": "E"}, {"answer": "AB"}, {"answer": ""}, {"question": " "}],
)
def test_a_row_that_is_no_question_is_refused_with_its_place(
    change: dict[str, str], tmp_path: Path
) -> None:
    rows = [row | (change if at == 1 else {}) for at, row in enumerate(ENGLISH["anatomy"]["test"])]
    folder = made.archive(tmp_path, {"anatomy": {"test": rows}}, (), "_{}")
    said = problems("mmlu", folder)
    assert f"row 2 of {folder / 'test' / 'anatomy_test.csv'} is no question of MMLU" in said

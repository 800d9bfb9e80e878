"""Measures models with lm-eval and with ``evaluate --benchmark``, and compares every answer.

    python benchmarks/lm_eval_scores.py --models DIR... --work DIR [--questions 40] [--out FILE]

lm-eval runs its own tasks' prompts and scores on small benchmarks that are made here in the layouts
of the known ones; nothing is fetched. It is not among this package's dependencies: ``pip install
lm_eval`` into an environment of its own that has this package too.
"""

import argparse
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import made_benchmarks as made
import yaml

from llama_recipes_local.cli import main as program

SUBJECTS = {
    "mmlu": ("anatomy", "us_foreign_policy", "high_school_physics"),
    "ceval": ("accountant", "law", "college_physics"),
    "cmmlu": ("agronomy", "arts", "chinese_history"),
}
TEMPLATES = {
    "mmlu": "mmlu/default/mmlu_{}.yaml",
    "ceval": "ceval/ceval-valid_{}.yaml",
    "cmmlu": "cmmlu/cmmlu_{}.yaml",
}
PART = "{}-00000-of-00001.parquet"


def make(work: Path, count: int) -> dict[str, list[str]]:
    """Write the benchmarks, and lm-eval's tasks on them; return the tasks' names by benchmark."""
    names: dict[str, list[str]] = {}
    for name, subjects in SUBJECTS.items():
        measured = "val" if name == "ceval" else "test"
        rows = {
            subject: {
                part: made.questions(subject, part, 5 if part == "dev" else count, name != "mmlu")
                for part in ("dev", measured)
            }
            for subject in subjects
        }
        if name == "cmmlu":
            made.archive(work / name, rows, ("Question", "Answer"))
        else:
            made.hub_clone(work / name, rows, spread=name == "ceval")
        for subject in subjects:
            places = {
                part: work / name / part / f"{subject}.csv"
                if name == "cmmlu"
                else work / name / subject / PART.format(part)
                for part in ("dev", measured)
            }
            task = write_task(work, f"{name} {subject}", TEMPLATES[name].format(subject), places)
            names.setdefault(name, []).append(task)
    solved = {part: made.solutions(part, rows) for part, rows in (("train", 40), ("test", 12))}
    made.hub_clone(work / "gsm8k", {"main": solved})
    places = {part: work / "gsm8k" / "main" / PART.format(part) for part in solved}
    names["gsm8k"] = [write_task(work, "gsm8k main", "gsm8k/gsm8k.yaml", places)]
    return names


def write_task(work: Path, name: str, template: str, places: dict[str, Path]) -> str:
    """Write a task of lm-eval's that reads local files; return its name."""
    import lm_eval

    settings = {
        "include": str(Path(lm_eval.__file__).parent / "tasks" / template),
        "task": name,
        "tag": f"local {name}",
        "dataset_path": "csv" if name.startswith("cmmlu") else "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {part: str(path) for part, path in places.items()}},
    }
    (work / "tasks").mkdir(parents=True, exist_ok=True)
    (work / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    return name


def theirs(language_model: Any, work: Path, tasks: list[str], shots: int | None) -> Any:
    """Return what lm-eval finds."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(work / "tasks"), include_defaults=False)
    options = {"num_fewshot": shots, "bootstrap_iters": 100, "log_samples": True}
    return lm_eval.simple_evaluate(language_model, tasks=tasks, task_manager=manager, **options)


def ours(model: Path, work: Path, name: str, shots: int | None) -> Any:
    """Return what ``evaluate`` finds."""
    out = work / "result.json"
    words = ["--benchmark", name, "--benchmark_path", work / name, "--model_name", model]
    words += ["--out", out, *(["--num_fewshot", shots] if shots is not None else [])]
    assert program(["evaluate", *map(str, words)]) == 0
    return json.loads(out.read_text())


def compared(name: str, found: Any, own: Any) -> dict[str, Any]:
    """Return how many answers are the same, and the largest differences of scores and errors."""
    answers: dict[str, list[str]] = {}
    for each in own["answers"]:
        answers.setdefault(each["key"].split()[0], []).append(each["prediction"].rstrip())
    same, seen, scores, errors = 0, set(), [], []
    for task, samples in found["samples"].items():
        subject = task.split()[1]
        by_number = {each["doc_id"]: each["resps"] for each in samples}
        for number, responses in by_number.items():
            if name == "gsm8k":
                answer = responses[0][0].rstrip()
            else:
                likelihoods = [each[0][0] for each in responses]
                answer = "ABCD"[likelihoods.index(max(likelihoods))]
            seen.add(answer)
            same += answer == answers[subject][number]
        for metric, parts in own["parts"].items():
            (score,) = (each for each in parts if each["name"] == subject)
            first, _, rule = metric.partition(",")
            key = f"{first},{rule or 'none'}"
            result = found["results"][task]
            scores.append(abs(result[key] - score["value"]))
            errors.append(abs(result[key.replace(",", "_stderr,")] - score["stderr"]))
    return {
        "questions": len(own["answers"]),
        "same_answers": same,
        "distinct_answers": len(seen),
        "largest_difference_of_scores": float(max(scores)),
        "largest_difference_of_errors": float(max(errors)),
    }


def main() -> None:
    """Measure each model on each benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    from lm_eval.models.huggingface import HFLM

    work = args.work.resolve()
    names = make(work, args.questions)
    rows = []
    for model in map(Path.resolve, args.models):
        language_model = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=8)
        for name, tasks in names.items():
            for shots in (None,) if name == "gsm8k" else (None, 5):
                start = time.perf_counter()
                found = theirs(language_model, work, tasks, shots)
                middle = time.perf_counter()
                row = compared(name, found, ours(model, work, name, shots))
                seconds = (middle - start, time.perf_counter() - middle)
                row |= {"lm_eval_seconds": seconds[0], "seconds": seconds[1]}
                rows.append({"model": model.name, "benchmark": name, "shots": shots, **row})
                print(rows[-1], flush=True)
    packages = ("lm_eval", "torch", "transformers")
    result = {"versions": {each: version(each) for each in packages}, "rows": rows}
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

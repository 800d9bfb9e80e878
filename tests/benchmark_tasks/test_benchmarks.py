"""``evaluate --benchmark``: the same scores as lm-eval, for any size of a batch."""

import json
import shutil
from pathlib import Path
from typing import Any

import made_benchmarks as made
import pytest
import torch
from llama_families import build
from transformers import AutoModelForCausalLM

from llama_recipes_local.benchmark_tasks.local_files import BenchmarkFiles
from llama_recipes_local.benchmark_tasks.prompts import asked
from llama_recipes_local.benchmark_tasks.solutions import ENDS, FLEXIBLE, LONGEST, STRICT, is_right
from llama_recipes_local.benchmark_tasks.tasks import TASKS
from llama_recipes_local.cli import main
from llama_recipes_local.models import AutoTokenizer

SUBJECTS = {
    name: {"dev": made.questions(name, "dev", 5), "test": made.questions(name, "test", count)}
    for name, count in (("anatomy", 9), ("astronomy", 4), ("sociology", 12))
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("Llama 2 Chat", tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.hub_clone(tmp_path_factory.mktemp("mmlu") / "clone", SUBJECTS)


def measure(tmp_path: Path, model: Path, task: str, data: Path, *words: str) -> dict[str, Any]:
    """Return the saved result."""
    out = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
    given = ["--benchmark", task, "--benchmark_path", str(data), "--model_name", str(model)]
    assert main(["evaluate", *given, "--out", str(out), *words]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_answers_are_the_same_for_any_batch(model: Path, clone: Path, tmp_path: Path) -> None:
    found = [
        measure(tmp_path, model, "mmlu", clone, "--batch_size", size, "--num_fewshot", "2")
        for size in ("1", "3", "64")
    ]
    assert found[0]["answers"] == found[1]["answers"] == found[2]["answers"]
    assert len({each["prediction"] for each in found[0]["answers"]}) > 1


def test_letters_are_the_likeliest_by_transformers_own(
    model: Path, clone: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    from llama_recipes_local.benchmark_tasks.local_files import BenchmarkFiles
    from llama_recipes_local.benchmark_tasks.prompts import asked
    from llama_recipes_local.benchmark_tasks.tasks import TASKS
    from llama_recipes_local.models import AutoTokenizer

    task = TASKS["mmlu"]
    questions = asked(task, BenchmarkFiles(task, clone), 0, 0)
    tokenizer = AutoTokenizer.from_pretrained(model)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    for each, answer in zip(
        questions, measure(tmp_path, model, "mmlu", clone)["answers"], strict=True
    ):
        start = len(tokenizer(each.prompt)["input_ids"])
        scores = []
        for letter in "ABCD":
            ids = torch.tensor([tokenizer(f"{each.prompt} {letter}")["input_ids"]])
            with torch.no_grad():
                found = plain(ids).logits.log_softmax(-1)
            told = ids[0, start:]
            scores.append(float(found[0, start - 1 : -1].gather(1, told[:, None]).sum()))
        assert answer["prediction"] == "ABCD"[scores.index(max(scores))]


def test_groups_are_weighed_by_their_questions(model: Path, clone: Path, tmp_path: Path) -> None:
    found = measure(tmp_path, model, "mmlu", clone)
    scores = {each["name"]: each for each in found["parts"]["acc"]}
    assert list(scores) == ["MMLU", "(stem)", "(social sciences)", *SUBJECTS]
    right = [answer["prediction"] in answer["references"] for answer in found["answers"]]
    assert scores["MMLU"]["value"] == pytest.approx(sum(right) / len(right))
    assert scores["anatomy"]["value"] == pytest.approx(sum(right[:9]) / 9)
    assert scores["(stem)"]["value"] == pytest.approx(sum(right[:13]) / 13)
    assert found["metrics"]["acc"]["value"] == scores["MMLU"]["value"]


def test_a_gguf_file_is_measured_as_its_model(model: Path, clone: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the package gguf is missing")
    words = ["--model_name", str(model), "--out", str(tmp_path / "gguf"), "--type", "f32"]
    assert main(["export", *words]) == 0
    (path,) = (tmp_path / "gguf").glob("*.gguf")
    found = measure(tmp_path, path, "mmlu", clone)
    assert found["answers"] == measure(tmp_path, model, "mmlu", clone)["answers"]
    assert found["about"]["model_name"] == str(path)


def test_the_folders_options_of_generation_hold_as_in_lm_eval(model: Path, tmp_path: Path) -> None:
    rows = {part: made.solutions(part, 3) for part in ("train", "test")}
    data = made.hub_clone(tmp_path / "gsm8k", {"main": rows})
    # transformers' penalty sees the padding of a batch too
    words = ["--num_fewshot", "1", "--batch_size", "1"]
    plain = measure(tmp_path, model, "gsm8k", data, *words)
    folder = tmp_path / "penalised"
    shutil.copytree(model, folder)
    path = folder / "generation_config.json"
    options = json.loads(path.read_text()) | {"repetition_penalty": 1.7, "temperature": 0.1}
    path.write_text(json.dumps(options | {"do_sample": True}))
    found = measure(tmp_path, folder, "gsm8k", data, *words)
    assert found["answers"] != plain["answers"]
    known: Any = AutoModelForCausalLM.from_pretrained(folder)  # with its generation_config
    tokenizer = AutoTokenizer.from_pretrained(folder)
    task = TASKS["gsm8k"]
    for question, each in zip(
        asked(task, BenchmarkFiles(task, data), 1, 0), found["answers"], strict=True
    ):
        ids = tokenizer(question.prompt, return_tensors="pt")
        made_ids = known.generate(**ids, do_sample=False, max_new_tokens=LONGEST)[0]
        text = tokenizer.decode(made_ids[ids["input_ids"].shape[1] :], skip_special_tokens=True)
        for end in ENDS:
            text = text.partition(end)[0]
        assert each["prediction"] == text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": 1, "z": 2}, "a JSON object with a, z"),
        ({"about": {}, "asked": {}}, "it measured nothing"),
        ([1], "a list"),
        (None, "null"),
    ],
)
def test_another_file_is_not_compared_and_is_named(
    content: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content))
    assert main(["evaluate", "--compare", str(path), str(path)]) == 2
    error = capsys.readouterr().err
    assert "is not a result of evaluate" in error and said in error and "__init__" not in error


def test_two_results_of_a_benchmark_are_compared(
    model: Path, clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measure(tmp_path, model, "mmlu", clone)
    measure(tmp_path, model, "mmlu", clone, "--num_fewshot", "5")
    capsys.readouterr()
    files = [str(tmp_path / "0.json"), str(tmp_path / "1.json")]
    assert main(["evaluate", "--compare", *files]) == 0
    assert "acc" in capsys.readouterr().out


def test_scores_are_printed_as_json(
    model: Path, clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measure(tmp_path, model, "mmlu", clone, "--json", "--max_examples", "2")
    printed = json.loads(capsys.readouterr().out)
    assert printed["scores"] == found["parts"]
    assert {each["questions"] for each in printed["scores"]["acc"][3:]} == {2}
    assert printed["about"]["num_fewshot"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--benchmark", "mmlu"], ["files of MMLU are not named", "no model to load"]),
        (["--benchmark", "mmul"], ["did you mean mmlu"]),
        (["--num_fewshot", "3"], ["--num_fewshot without --benchmark"]),
        (["--benchmark", "mmlu", "--benchmark_path", "no", "--lr", "1"], ["--lr with", "is not"]),
        (["--benchmark", "mmlu", "--metrics", "loss"], ["--metrics with --benchmark"]),
        (["--benchmark", "mmlu", "--max_new_tokens", "9"], ["--max_new_tokens with"]),
    ],
)
def test_what_is_wrong_is_said_at_once(
    words: list[str], said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["evaluate", *words, "--out", str(tmp_path / "out.json")])
    except SystemExit as error:  # of the command line's parser
        code = int(str(error.code))
    assert code == 2
    error = capsys.readouterr().err
    assert all(each in error for each in said), error


@pytest.mark.parametrize(
    ("solution", "strict", "flexible"),
    [
        (" 3 * 4 = 12.\n#### 12", True, True),
        (" it is 12", False, True),
        (" #### $12.", False, True),
        (" #### 12. Then 5", True, False),
        (" #### 1,2", True, True),
        (" #### 11\n#### 12", False, True),
        (" #### 12\n#### 11", True, False),
        (" none", False, False),
        ("", False, False),
        (" 12.", False, True),
        (" -12", False, False),
    ],
)
def test_solutions_are_read_by_two_rules(solution: str, strict: bool, flexible: bool) -> None:
    reference = "There are 3 * 4 = <<3*4=12>>12 apples.\n#### 12"
    assert is_right(STRICT, solution, reference) == strict
    assert is_right(FLEXIBLE, solution, reference) == flexible

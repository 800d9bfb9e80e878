"""All that is wrong with a file's records is told at once, each kind with its count and places."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local.configs.datasets import local_dataset
from llama_recipes_local.datasets import rows as rows_module
from llama_recipes_local.datasets.file_checks import check_files
from llama_recipes_local.datasets.flaws import SKIP
from llama_recipes_local.datasets.layouts import find_layout
from llama_recipes_local.datasets.local import DATASET, split
from llama_recipes_local.datasets.rows import RowFormatter
from llama_recipes_local.datasets.templates import TemplateError
from llama_recipes_local.datasets.tokenized_splits import load_split
from llama_recipes_local.errors import Problem, UsageError

GOOD = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
CALL = [GOOD[0], GOOD[1] | {"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}]
WEIGHT = [GOOD[0], GOOD[1] | {"weight": 0.5}]
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"


@pytest.fixture(scope="module")
def instruct(tokenizer: Any) -> Any:
    own = copy.deepcopy(tokenizer)
    own.chat_template = PLAIN + "{% if add_generation_prompt %}[assistant]{% endif %}"
    return own


def check(problems: list[Problem]) -> None:
    calls, weights = problems
    assert calls.what.startswith("the chat template has no place for tool_calls: line ")
    assert calls.why.endswith("5 records are so: line 2, line 4, line 5, ...")
    assert weights.what.startswith("turn 2 of 'messages' in line 3 of ")
    assert "records are so" not in weights.why


def test_each_kind_is_counted(tmp_path: Path, instruct: Any) -> None:
    rows = [GOOD, CALL, WEIGHT, *[CALL] * 4]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    config = local_dataset(data_path=str(file), validation_path=str(file))
    with pytest.raises(UsageError) as error:
        load_split(split(config, "train"), instruct, cache=str(tmp_path / "cache"))
    check(error.value.problems)
    # and before anything is tokenised
    found = check_files(DATASET, config, ("train",), instruct)
    check(found)
    # some rows are right, so no other file is asked for
    assert all(SKIP in each.fix and "name another" not in each.fix for each in found)


def test_a_template_that_is_refused_is_not_proposed(tmp_path: Path, instruct: Any) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"messages": [GOOD[0], GOOD[0], GOOD[1]]}) + "\n")
    config = local_dataset(data_path=str(file), validation_path=str(file), template="llama2")
    (problem,) = check_files(DATASET, config, ("train",), instruct)
    assert "another template" in problem.fix and "llama2" not in problem.fix


def test_turns_that_differ_in_words_alone_are_rendered_once(
    tmp_path: Path, instruct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = []
    real = rows_module.render_chat
    monkeypatch.setattr(
        rows_module, "render_chat", lambda *given: rendered.append(given) or real(*given)
    )
    said = [[GOOD[0] | {"content": f"Hi {n}"}, GOOD[1]] for n in range(50)]
    said += [[*GOOD, *GOOD], [GOOD[0], GOOD[1] | {"weight": 0}], CALL, CALL]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in said))
    config = local_dataset(data_path=str(file), validation_path=str(file))
    (problem,) = check_files(DATASET, config, ("train",), instruct)
    assert "2 records are so: line 53, line 54" in problem.why
    assert len(rendered) == 5


BROKEN = {
    "No filter named 'no_such'": PLAIN + "{{ 1 | no_such }}",
    "line 2: ": PLAIN + "\n{% endif %}",
    "no attribute 'no'": PLAIN + "{{ messages[0].no.such }}",
    "not for you": PLAIN + "{{ raise_exception('not for you') }}",
    "no prompt": PLAIN + "{% if add_generation_prompt %}"
    "{{ raise_exception('no prompt') }}{% endif %}",
    "--local_dataset.template=": None,
}
SYSTEM = [{"role": "system", "content": "Be short."}, *GOOD]


@pytest.mark.parametrize("why", BROKEN)
@pytest.mark.parametrize("skip", [False, True])
def test_a_broken_template_is_one_problem_and_no_row_is_to_blame(
    why: str, skip: bool, tmp_path: Path, tokenizer: Any
) -> None:
    own = copy.deepcopy(tokenizer)
    own.chat_template = BROKEN[why]
    problems = found(tmp_path, [GOOD, SYSTEM, WEIGHT, GOOD], own, skip_bad_rows=skip)
    template = next(each for each in problems if "chat template" in each.what)
    assert why in str(template)
    assert len([each for each in problems if "chat template" in each.what]) == 1
    assert not any("skip_bad_rows" in each.fix for each in problems)
    assert "records are so" not in str(problems) and "data_path" not in template.fix
    record = ("line 1 of a.jsonl", {"messages": GOOD})
    formatter = RowFormatter(find_layout(record, "auto", {}), "auto", "assistant", skip)
    with pytest.raises(TemplateError):
        formatter(record, own)


def test_skipping_is_not_offered_where_nothing_would_be_left(tmp_path: Path, instruct: Any) -> None:
    own = copy.deepcopy(instruct)
    own.chat_template = own.chat_template.replace(
        "[{{ m.role }}]",
        "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}[{{ m.role }}]",
    )
    (problem,) = found(tmp_path, [SYSTEM, SYSTEM], own)
    assert "no system" in problem.why and "2 records are so" in problem.why
    assert "skip_bad_rows" not in problem.fix
    (some,) = found(tmp_path, [SYSTEM, GOOD, SYSTEM], own)
    assert some.what == problem.what and "skip_bad_rows" in some.fix
    # all of them skipped: the reason is still there
    (left,) = found(tmp_path, [SYSTEM, SYSTEM], own, skip_bad_rows=True)
    assert "no system" in left.why


def found(folder: Path, rows: list[Any], tokenizer: Any, **how: Any) -> list[Problem]:
    file = folder / "a.jsonl"
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    config = local_dataset(data_path=str(file), validation_path=str(file), **how)
    return check_files(DATASET, config, tokenizer=tokenizer)

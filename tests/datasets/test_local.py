"""A user's own rows: each layout read to the expected labels, or refused."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers.local_rows import configured, examples, refused, write
from pyarrow import parquet

from llama_recipes_local._upstream import load
from llama_recipes_local.datasets import local
from llama_recipes_local.datasets.encoding import encode
from llama_recipes_local.datasets.examples import Continuation, Example, Marked, Pair
from llama_recipes_local.datasets.local import split as local_split

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]


SHARED = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]


LLAMA2 = Marked("<s>[INST] Hi [/INST] Yo </s>", ((20, 28),), True)


@pytest.mark.parametrize(
    ("record", "fields", "expected"),
    [
        ({"text": "Some text."}, {}, Marked("Some text.")),
        ({"prompt": "Hi ", "completion": "Yo", "id": 7}, {}, Pair("Hi ", "Yo")),
        ({"prompt": "Hi ", "response": "Yo"}, {}, Pair("Hi ", "Yo")),
        ({"prompt": "Hi ", "response": "Yo"}, {"labels": "all"}, Marked("Hi Yo")),
        ({"prompt": "Hi", "response": "Yo"}, {"template": "llama2"}, LLAMA2),
        ({"messages": TURNS}, {"template": "llama2"}, LLAMA2),
        ({"messages": json.dumps(TURNS)}, {"template": "llama2"}, LLAMA2),
        ({"messages": SHARED}, {"template": "llama2"}, LLAMA2),
        ({"conversations": SHARED}, {"template": "llama2"}, LLAMA2),
        ({"conversations": TURNS}, {"template": "llama2"}, LLAMA2),
        ({"messages": [{"role": None} | turn for turn in SHARED]}, {"template": "llama2"}, LLAMA2),
        (
            {"conversations": SHARED},
            {"template": "llama2", "labels": "all"},
            Marked(LLAMA2.text, None, True),
        ),
        ({"instruction": "Hi", "output": "Yo"}, {"template": "llama2"}, LLAMA2),
        ({"instruction": "Hi", "output": "Yo"}, {"template": "none"}, Pair("Hi\n", "Yo")),
        (
            {"instruction": "Hi", "input": "x", "output": "Yo"},
            {"template": "none"},
            Pair("Hi\nx\n", "Yo"),
        ),
        (
            {"instruction": "Hi", "input": "x", "output": "Yo"},
            {"template": "guanaco"},
            Marked("### Human: Hi\nx### Assistant: Yo", ((29, 32),)),
        ),
        (
            {"question": "Hi ", "answer": "Yo"},
            {"columns": "prompt=question, completion=answer"},
            Pair("Hi ", "Yo"),
        ),
        ({"body": "a", "title": "b"}, {"columns": "text=body"}, Marked("a")),
        (
            {"prompt": "Hi ", "chosen": "Yo", "response": "no"},
            {"columns": "response=chosen"},
            Pair("Hi ", "Yo"),
        ),
        ({"prompt": "a", "completion": "b", "text": "c"}, {"format": "text"}, Marked("c")),
    ],
)
def test_each_layout(
    record: Any, fields: dict[str, Any], expected: Example, tmp_path: Path, tokenizer: Any
) -> None:
    config = configured(write(tmp_path / "rows.jsonl", record), **fields)
    assert examples(config, tokenizer) == [expected]


@pytest.mark.parametrize("record", [{"input": "x"}, {"input": ""}, {"input": None}, {}])
def test_instructions_have_upstreams_prompt(
    record: dict[str, Any], tmp_path: Path, tokenizer: Any
) -> None:
    row = {"instruction": "Say {x} hi.", "output": "Hi."} | record
    forms = load("datasets.alpaca_dataset").PROMPT_DICT
    prompt = forms["prompt_input" if record.get("input") else "prompt_no_input"].format_map(row)
    config = configured(write(tmp_path / "rows.jsonl", row))
    assert examples(config, tokenizer) == [Continuation(prompt, " Hi.")]
    asked = {"prompt": row["instruction"], "completion": "Hi."}
    config = configured(write(tmp_path / "asked.jsonl", asked), template="alpaca")
    plain = forms["prompt_no_input"].format_map(row)
    assert examples(config, tokenizer) == [Continuation(plain, " Hi.")]


def test_ids_and_labels_of_a_conversation(tmp_path: Path, tokenizer: Any) -> None:
    config = configured(write(tmp_path / "a.jsonl", {"messages": TURNS}), template="llama2")
    (sample,) = encode(tokenizer, [e for e in examples(config, tokenizer) if e])
    assert tokenizer.decode(sample["input_ids"]) == LLAMA2.text
    before = tokenizer.encode("<s>[INST] Hi [/INST]", add_special_tokens=False)
    after = tokenizer.encode(" Yo </s>", add_special_tokens=False)
    assert sample["input_ids"] == before + after
    assert sample["labels"] == [-100] * len(before) + after


def test_turns_are_read_as_people_write_them(tmp_path: Path, tokenizer: Any) -> None:
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    blank = {"role": "system", "content": " "}
    extra = [{**TURNS[0], "name": None, "content": parts}, {**TURNS[1], "tool_calls": None}]
    file = write(tmp_path / "a.jsonl", {"messages": [blank, *extra]})
    assert examples(configured(file, template="llama2"), tokenizer) == [LLAMA2]


@pytest.mark.parametrize(
    ("good", "blank"),
    [
        ({"text": "a"}, [{"text": " \n"}, {"text": None}]),
        ({"prompt": "a", "completion": "b"}, [{"prompt": "", "completion": "b"}]),
        ({"prompt": "a", "completion": "b"}, [{"prompt": "a", "completion": None}]),
        ({"instruction": "a", "output": "b"}, [{"instruction": "a", "output": " "}]),
        ({"messages": TURNS}, [{"messages": []}, {"messages": None}, {"messages": ""}]),
        ({"messages": TURNS}, [{"messages": [TURNS[0], {"role": "assistant", "content": None}]}]),
        ({"messages": TURNS}, [{"messages": [{"role": "system", "content": ""}]}]),
    ],
)
def test_a_blank_row_is_none(good: Any, blank: list[Any], tmp_path: Path, tokenizer: Any) -> None:
    turns = "messages" in good
    file = write(tmp_path / "rows.jsonl", good, *blank)
    read = examples(configured(file, template="llama2" if turns else "auto"), tokenizer)
    assert read[0] is not None
    assert read[1:] == [None] * len(blank)


@pytest.mark.parametrize(
    ("value", "what", "why"),
    [
        ({"text": 5}, "'text' in line 2 of {file} is not text", "it is 5"),
        ({"text": 0.5}, "'text' in line 2 of {file} is not text", "it is 0.5"),
        ({"text": ["a"]}, "'text' in line 2 of {file} is not text", "it is ['a']"),
        ({"text": "\ud800"}, "'text' in line 2 of {file} is not Unicode text", "surrogates"),
    ],
)
def test_a_value_that_is_not_text_is_reported(
    value: Any, what: str, why: str, tmp_path: Path, tokenizer: Any
) -> None:
    file = write(tmp_path / "rows.jsonl", {"text": "a"}, value)
    problem = refused(configured(file), tokenizer)
    assert problem.what == what.format(file=file)
    assert why in problem.why
    if isinstance(value["text"], (int, float)):
        assert f'write it in quotes, as text: "{value["text"]}"' in problem.fix


@pytest.mark.parametrize(
    ("turns", "what", "why"),
    [
        ("Hi", "'messages' in {line} is text, not a list of turns in JSON", "begins 'Hi'"),
        ("9" * 5000, "'messages' in {line} is text, not a list of turns in JSON", "digits"),
        ({"role": "user"}, "'messages' in {line} is not a list of turns", "it is {'role'"),
        (["Hi"], "turn 1 of 'messages' in {line} is not a turn", "it is 'Hi'"),
        ([{"content": "a"}], "turn 1 of 'messages' in {line} has no speaker", "content"),
        (
            [TURNS[0], {"role": "narrator", "content": "a"}],
            "turn 2 of 'messages' in {line} has the unknown speaker 'narrator'",
            "system, developer, user, human, assistant, gpt",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
            "turn 1 of 'messages' in {line} has content that is not text",
            "image_url",
        ),
        (
            [{"role": "user", "content": [{"type": "thought", "text": "x"}]}],
            "turn 1 of 'messages' in {line} has content that is not text",
            "thought",
        ),
        (
            [{"role": "user", "content": 5}],
            "'content' of turn 1 of 'messages' in {line} is not text",
            "it is 5",
        ),
    ],
)
def test_what_is_wrong_with_turns(
    turns: Any, what: str, why: str, tmp_path: Path, tokenizer: Any
) -> None:
    file = write(tmp_path / "rows.jsonl", {"messages": TURNS}, {"messages": turns})
    problem = refused(configured(file, template="llama2"), tokenizer)
    assert problem.what == what.format(line=f"line 2 of {file}")
    assert why in problem.why


def test_rows_of_mixed_layouts_are_reported(tmp_path: Path, tokenizer: Any) -> None:
    file = write(tmp_path / "a.jsonl", {"prompt": "a", "completion": "b"}, {"messages": TURNS})
    problem = refused(configured(file), tokenizer)
    assert problem.what == f"line 2 of {file} has no 'prompt'"
    assert "prompt (prompt, completion)" in problem.why
    assert "messages, which is messages (messages)" in problem.why
    file = write(tmp_path / "b.jsonl", {"text": "a"}, {"body": "b"})
    assert "body, which is none of the known layouts" in refused(configured(file), tokenizer).why


@pytest.mark.parametrize(
    ("record", "fields", "what", "fix"),
    [
        ({"a": "1", "b": "2"}, {}, "is not a record of a known layout", "prompt=a,completion=b"),
        ({"prompt": "a"}, {"format": "text"}, "is not a record of the layout text", "columns="),
        ({"text": "a"}, {"columns": "text=body"}, "has no column body", "columns="),
        (
            {"instruction": "a", "output": "b"},
            {"columns": "input=context", "format": "text"},
            "has no column context, which --local_dataset.columns names",
            "columns=prompt=instruction,completion=output",
        ),
        (
            {"instruction": "a", "output": "b", "text": "c"},
            {},
            "matches more than one layout",
            "choose one: --local_dataset.format=instruction",
        ),
        (
            {"prompt": "a", "completion": "b", "response": "c"},
            {},
            "matches more than one layout",
            "choose one: --local_dataset.columns=prompt=prompt,completion=completion",
        ),
    ],
)
def test_unknown_and_ambiguous_columns_are_reported(
    record: Any, fields: dict[str, Any], what: str, fix: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "rows.jsonl", record)
    problem = refused(configured(file, **fields))
    assert problem.what.startswith(f"line 1 of {file} {what}")
    assert ", ".join(record) in problem.why
    assert fix in problem.fix


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"format": "sharegpt"}, "unknown --local_dataset.format sharegpt"),
        ({"template": "vicuna"}, "unknown --local_dataset.template vicuna"),
        ({"labels": "none"}, "unknown --local_dataset.labels none"),
        ({"validation_fraction": 0}, "--local_dataset.validation_fraction is 0"),
        ({"validation_fraction": 0.6}, "--local_dataset.validation_fraction is 0.6"),
        ({"columns": "question"}, "--local_dataset.columns=question is invalid"),
        ({"columns": "prompt=a,prompt=b"}, "is invalid at 'prompt=b'"),
        ({"columns": "quest=a"}, "is invalid at 'quest=a'"),
        ({"template": "llama2"}, "template=llama2 is incompatible with text (text)"),
    ],
)
def test_wrong_flags_are_reported(fields: dict[str, Any], what: str, tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", {"text": "a"})
    assert what in refused(configured(file, **fields)).what


@pytest.mark.parametrize("template", ["alpaca", "none"])
def test_turns_need_a_chat_template(template: str, tmp_path: Path, tokenizer: Any) -> None:
    file = write(tmp_path / "rows.jsonl", {"messages": TURNS})
    problem = refused(configured(file, template=template))
    assert "is incompatible with messages (messages) records" in problem.what
    assert refused(configured(file), tokenizer).what == (
        "the model's tokenizer has no chat template"
    )


def test_each_file_format(tmp_path: Path, tokenizer: Any) -> None:
    row = {"prompt": 'a, "b"\nc ', "response": "ü"}
    (tmp_path / "a.json").write_text(json.dumps([row]), "utf-8")
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with (tmp_path / name).open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([[*row, "id"], [*row.values(), "1"]])
    parquet.write_table(pa.Table.from_pylist([row | {"id": 1}]), tmp_path / "a.parquet")
    packed = gzip.compress((tmp_path / "a.csv").read_bytes())
    (tmp_path / "b.csv.gz").write_bytes(packed)
    for name in ("a.json", "a.csv", "a.tsv", "a.parquet", "b.csv.gz"):
        assert examples(configured(tmp_path / name), tokenizer) == [Pair(row["prompt"], "ü")], name


def test_optional_columns_may_be_missing(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "a.csv").write_text("instruction,output\nHi,Yo\n")
    config = configured(tmp_path / "a.csv", template="none")
    assert examples(config, tokenizer) == [Pair("Hi\n", "Yo")]


def test_columns_without_a_place_are_noted_for_records_that_have_them(
    tmp_path: Path, tokenizer: Any
) -> None:
    rows = [{"text": "a", "id": 1, "system": "s"}, {"text": "b", "id": None, "system": " "}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    first, second = examples(configured(tmp_path / "a.parquet"), tokenizer)
    assert first is not None and first.notes == ("column 'id'", "column 'system'")
    assert second is not None and second.notes == ()


def test_turns_in_a_parquet_file(tmp_path: Path, tokenizer: Any) -> None:
    turns = [TURNS[0] | {"name": None}, TURNS[1] | {"name": "x"}]
    parquet.write_table(pa.Table.from_pylist([{"messages": turns}]), tmp_path / "a.parquet")
    config = configured(tmp_path / "a.parquet", template="llama2")
    assert examples(config, tokenizer) == [LLAMA2]


def test_all_that_an_example_depends_on_is_in_the_formatters_repr(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", {"prompt": "a", "completion": "b", "text": "c"})
    names = {
        repr(local_split(configured(file, **fields), "train").formatter)
        for fields in (
            {"format": "prompt"},
            {"format": "text"},
            {"format": "prompt", "template": "llama2"},
            {"format": "prompt", "labels": "all"},
            {"columns": "prompt=text"},
        )
    }
    assert len(names) == 5


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["question", "answer"], "prompt (question, answer)"),
        (["Frage", "Prompt", "Completion"], "prompt (Prompt, Completion)"),
        (["original_question", "query", "response"], "prompt (query, response)"),
        (["INPUT", "Target"], "prompt (INPUT, Target)"),
        (["input", "output"], "prompt (input, output)"),
        (["prompt", "answer"], "prompt (prompt, answer)"),
        (["user", "assistant"], "prompt (user, assistant)"),
        (
            ["instruction", "context", "response", "category"],
            "instruction (instruction, context, response)",
        ),
        (["Instruction", "Output"], "instruction (Instruction, Output)"),
        (["instruction", "question", "answer"], "instruction (instruction, question, answer)"),
        ([" text ", "id"], "text ( text )"),
        (["prompt", "completion", "question", "answer"], "prompt (prompt, completion)"),
    ],
)
def test_the_usual_names_of_columns(columns: list[str], expected: str, tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", dict.fromkeys(columns, "a"))
    part = local.find_part(configured(file), training=True)
    there = [name for _, name in part.layout.columns if name in columns]
    assert f"{part.layout.name} ({', '.join(there)})" == expected


def test_two_pairs_of_usual_names_are_ambiguous(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", {"question": "a", "answer": "b", "response": "c"})
    problem = refused(configured(file))
    assert "matches more than one layout" in problem.what
    assert "question, answer" in problem.why
    assert "question, response" in problem.why


@pytest.mark.parametrize(
    ("record", "fix"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "prompt=prompt,completion=chosen"),
        ({"question": "a", "Chosen": "b", "Rejected": "c"}, "prompt=question,completion=Chosen"),
        ({"chosen": "b", "rejected": "c"}, "text=chosen"),
        ({"chosen": TURNS, "rejected": TURNS}, "messages=chosen"),
    ],
)
def test_preferences_are_refused_with_the_columns_that_train(
    record: Any, fix: str, tmp_path: Path, tokenizer: Any
) -> None:
    file = write(tmp_path / "rows.jsonl", record)
    problem = refused(configured(file))
    assert "is a preference" in problem.what
    assert problem.fix.endswith(f"--local_dataset.columns={fix}")
    template = "llama2" if fix.startswith("messages") else "auto"
    assert examples(configured(file, columns=fix, template=template), tokenizer)[0] is not None


def test_a_named_column_of_another_case_is_found(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", {"Kundenfrage": "a", "Antwort": "b"})
    named = configured(file, columns="prompt=kundenfrage,completion=ANTWORT")
    assert str(local.find_part(named, training=True).layout) == "prompt (Kundenfrage, Antwort)"
    problem = refused(configured(file, columns="prompt=Kundenfragen,completion=Antwort"))
    assert problem.fix == "did you mean Kundenfrage?"


def test_dollys_columns_can_be_named_as_they_are(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", {"instruction": "a", "context": "b", "response": "c"})
    named = configured(file, columns="input=context,response=response")
    layout = local.find_part(named, training=True).layout
    assert str(layout) == "instruction (instruction, context, response)"


def test_the_first_record_need_not_be_a_sound_one(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"about": "this file"}, {"prompt": "a", "completion": "b"}]
    config = configured(write(tmp_path / "rows.jsonl", *rows), skip_bad_rows=True)
    assert examples(config, tokenizer) == [None, Pair("a", " b")]

"""A user's own files: found, divided into splits, and each layout read to the expected labels."""

import csv
import gzip
import json
import os
import pickle
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from llama_recipes_local._upstream import load
from llama_recipes_local.configs.datasets import local_dataset
from llama_recipes_local.datasets import local
from llama_recipes_local.datasets.encoding import encode
from llama_recipes_local.datasets.examples import Continuation, Example, Marked, Pair
from llama_recipes_local.datasets.local import split as local_split
from llama_recipes_local.errors import Problem, UsageError

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
SHARED = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
LLAMA2 = Marked("<s>[INST] Hi [/INST] Yo </s>", ((20, 28),), True)


def write(file: Path, *records: Any) -> str:
    """Write records as JSON lines, and return the file's path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return str(file)


def configured(path: Any, **fields: Any) -> local_dataset:
    """A configuration in which no row is held out."""
    return replace(local_dataset(data_path=str(path), validation_path=str(path)), **fields)


def examples(config: local_dataset, tokenizer: Any, part: str = "train") -> list[Example | None]:
    split = local_split(config, part)
    return [split.formatter(record, tokenizer) for record in split.records()]


def rows(config: local_dataset, part: str) -> list[str]:
    """The texts of a split's records."""
    return [record["text"] for _, record in local_split(config, part).records()]


def refused(config: local_dataset, tokenizer: Any = None, part: str = "train") -> Problem:
    with pytest.raises(UsageError) as refusal:
        examples(config, tokenizer, part)
    (problem,) = refusal.value.problems
    return problem


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


def test_rows_are_held_out_of_one_file(tmp_path: Path) -> None:
    texts = [f"row {number}" for number in range(45)]
    file = write(tmp_path / "rows.jsonl", *({"text": text} for text in texts))
    config = local_dataset(data_path=file)
    held_out = [texts[0], texts[20], texts[40]]
    assert rows(config, "validation") == held_out
    assert rows(config, "train") == [text for text in texts if text not in held_out]
    tenths = replace(config, validation_fraction=0.1)
    assert rows(tenths, "validation") == texts[::10]
    assert set(rows(tenths, "train")) == set(texts) - set(texts[::10])
    splits = [local_split(each, part) for each in (config, tenths) for part in ("train", "test")]
    assert [split.part for split in splits] == [
        "all but 1 record in 20",
        "1 record in 20",
        "all but 1 record in 10",
        "1 record in 10",
    ]
    assert "all rows but the first of each 20" in splits[0].notes[0]
    assert "of the rows, the first of each 10" in splits[3].notes[0]


def test_a_single_row_cannot_be_held_out_and_trained(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", {"text": "a"})
    problem = refused(local_dataset(data_path=file))
    assert problem.what == f"{file} has one record"
    assert "a folder of train.jsonl and validation.jsonl" in problem.fix  # a mixture takes it too
    write(tmp_path / "rows.jsonl", {"unknown": "a"})
    assert "is not a record" in refused(local_dataset(data_path=file)).what
    write(tmp_path / "rows.jsonl", {"text": "a"}, {"text": "b"})
    config = local_dataset(data_path=file)
    assert (rows(config, "train"), rows(config, "validation")) == (["b"], ["a"])


@pytest.mark.parametrize(
    ("names", "training", "validation"),
    [
        (["train.jsonl", "val.jsonl"], ["train.jsonl"], ["val.jsonl"]),
        (["gtrain_10k.jsonl", "my-dev.jsonl"], ["gtrain_10k.jsonl"], ["my-dev.jsonl"]),
        (["train.jsonl", "test.jsonl"], ["train.jsonl"], ["test.jsonl"]),
        (["a/train.jsonl", "a/eval.jsonl", "a/test.jsonl"], ["a/train.jsonl"], ["a/eval.jsonl"]),
        (
            ["train/2.jsonl", "train/10.jsonl", "validation/1.jsonl"],
            ["train/2.jsonl", "train/10.jsonl"],
            ["validation/1.jsonl"],
        ),
        (
            ["train-0-of-2.jsonl", "train-1-of-2.jsonl", "validation-0-of-1.jsonl", "more.jsonl"],
            ["train-0-of-2.jsonl", "train-1-of-2.jsonl"],
            ["validation-0-of-1.jsonl"],
        ),
    ],
)
def test_files_of_a_folder_are_divided_by_name(
    names: list[str], training: list[str], validation: list[str], tmp_path: Path
) -> None:
    # the folder's own name says nothing of the files in it
    folder = tmp_path / "train-and-test"
    for name in names:
        write(folder / name, {"text": name})
    config = local_dataset(data_path=str(folder))
    assert rows(config, "train") == training
    assert rows(config, "validation") == validation
    assert local_split(config, "train").files == tuple(folder / name for name in training)


@pytest.mark.parametrize(
    "names",
    [
        ["a.jsonl", "b.jsonl"],
        ["train.jsonl"],
        ["latest.jsonl", "constrained.jsonl"],
        ["train-and-test.jsonl", "val.jsonl"],
        ["train/a.jsonl", "train/val.jsonl"],
    ],
)
def test_rows_are_held_out_if_no_name_shows_a_split(names: list[str], tmp_path: Path) -> None:
    for name in names:
        write(tmp_path / name, *({"text": f"{name} {number}"} for number in range(15)))
    config = local_dataset(data_path=str(tmp_path))
    every = [f"{name} {number}" for name in sorted(names) for number in range(15)]
    assert rows(config, "validation") == every[::20]
    assert sorted(rows(config, "train")) == sorted(set(every) - set(every[::20]))


def test_files_of_no_split_are_reported(tmp_path: Path) -> None:
    for name in ("train", "val", "more"):
        write(tmp_path / f"{name}.jsonl", {"text": name})
    config = local_dataset(data_path=str(tmp_path))
    assert rows(config, "train") == ["train"]
    note, _ = local_split(config, "train").notes
    assert note == f"--> skipped files, whose names are of no split: {tmp_path / 'more.jsonl'}"


def test_named_validation_data_is_not_trained_on(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.jsonl", {"text": name})
    config = local_dataset(data_path=str(tmp_path), validation_path=str(tmp_path / "[bx].jsonl"))
    assert rows(config, "train") == ["a", "c"]
    assert rows(config, "validation") == ["b"]


def test_paths_start_from_the_data_root(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "part10.jsonl", {"text": "10"})
    write(tmp_path / "mine" / "part2.jsonl", {"text": "2"})
    (tmp_path / "mine" / "part2.jsonl.gz").write_bytes(b"its packed twin is not read")
    for pattern in ("mine", "mine/part*", "*/*.jsonl", "**/*.jsonl"):
        config = local_dataset(
            data_path=pattern, validation_path="mine/part2.jsonl", data_root=str(tmp_path)
        )
        assert rows(replace(config, validation_path=pattern), "train") == ["2", "10"]
        assert rows(config, "train") == ["10"]


def test_what_is_missing_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", {"text": "a"})
    problem = refused(local_dataset(data_path=str(tmp_path / "row.jsonl")))
    assert problem.what == f"{tmp_path / 'row.jsonl'} does not exist"
    assert "rows.jsonl" in problem.why and "--local_dataset.data_path=PATH" in problem.fix
    problem = refused(local_dataset(data_path=str(tmp_path / "*.csv")))
    assert problem.what == f"no file matches {tmp_path / '*.csv'}"
    config = local_dataset(data_path=str(tmp_path), validation_path=str(tmp_path / "no"))
    assert "--local_dataset.validation_path=PATH" in refused(config, part="validation").fix
    (tmp_path / "empty").mkdir()
    problem = refused(local_dataset(data_path=str(tmp_path / "empty")))
    assert problem.what == f"{tmp_path / 'empty'} contains no supported data file"
    os.mkfifo(tmp_path / "pipe")
    assert "only be read once" in refused(local_dataset(data_path=str(tmp_path / "pipe"))).why


def test_half_a_line_is_reported_with_its_number(tmp_path: Path, tokenizer: Any) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n{"text": "b', "utf-8")
    assert f"line 2 of {file} is not JSON" in refused(configured(file), tokenizer).what
    file.write_text('{"text": "a"}\n{"text": "b"}\n{"text": "c', "utf-8")
    assert local_split(configured(file), "train").files == (file,)  # no further than it needs
    assert f"line 3 of {file} is not JSON" in refused(configured(file), tokenizer).what


def test_a_split_notes_how_it_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", {"prompt": "a", "completion": "b"})
    assert local_split(configured(file), "train").notes == (
        f"--> train: prompt (prompt, completion) from {file}, labels assistant",
    )


def test_a_split_can_be_sent_to_another_process(tmp_path: Path, tokenizer: Any) -> None:
    file = write(tmp_path / "rows.jsonl", {"text": "a"}, {"text": "b"})
    split = local_split(local_dataset(data_path=file), "train")
    sent = pickle.loads(pickle.dumps(split))
    assert list(sent.records()) == list(split.records()) == list(split.records())
    assert repr(sent.formatter) == repr(split.formatter)


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


def test_the_splits_of_many_files_are_found_quickly() -> None:
    files = [
        Path(f"/data/{split}/{number}.csv") for split in ("train", "dev") for number in range(5000)
    ]
    begun = time.process_time()
    assert local._kinds(files) == ["train"] * 5000 + ["validation"] * 5000
    assert time.process_time() - begun < 5  # not with the square of their number: minutes


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("", "--local_dataset.data_path is empty"),
        (" ", "--local_dataset.data_path is empty"),
        ("/", "/ is the root of the file system"),
        ("https://host/rows.jsonl", "https://host/rows.jsonl is an address, not a file"),
        ("s3://bucket/rows", "s3://bucket/rows is an address, not a file"),
        ("x" * 300, f"--local_dataset.data_path {'x' * 40}... cannot be a path"),
    ],
)
def test_paths_that_no_data_has(path: str, what: str) -> None:
    assert refused(local_dataset(data_path=path)).what == what


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


@pytest.mark.parametrize(
    ("texts", "documents", "expected"),
    [
        (["a\nb\n\nc\n"], "paragraph", ["a\nb", "c"]),
        (["a\nb\n"], "line", ["a", "b"]),
        (["a\n\nb\n", "c\n"], "file", ["a\n\nb", "c"]),
    ],
)
def test_documents_of_plain_text_are_chosen_and_said(
    texts: list[str], documents: str, expected: list[str], tmp_path: Path, tokenizer: Any
) -> None:
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text)
    config = configured(tmp_path)
    assert rows(config, "train") == expected
    note = f"--> plain text: a document is a {documents}; --local_dataset.documents=NAME"
    split = local_split(config, "train")
    assert note in split.notes
    assert split.part.endswith(f", a {documents} each")
    assert rows(replace(config, documents="line"), "train")[0] == "a"


def test_what_is_not_read_in_a_folder_is_said(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", {"text": "a"})
    for name in ("dataset_info.json", "README.md", "other.xlsx"):
        (tmp_path / name).write_text("{}")
    notes = local_split(configured(tmp_path), "train").notes
    skipped = f"--> skipped in {tmp_path}: README.md, dataset_info.json, other.xlsx;"
    assert notes[0].startswith(skipped)


def test_another_separator_is_said(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("Prompt;Completion\na;b\n")
    split = local_split(configured(tmp_path / "rows.csv"), "train")
    assert split.notes[0].endswith("rows.csv: cells are separated by ';', as its header shows")
    assert [values for _, values in split.records()] == [{"Prompt": "a", "Completion": "b"}]


@pytest.mark.parametrize("second", ["test", "validation", "Dev"])
def test_a_json_file_of_splits_is_read_as_them(second: str, tmp_path: Path) -> None:
    rows = [{"prompt": word, "completion": word} for word in "abc"]
    file = tmp_path / "all.json"
    file.write_text(json.dumps({"train": rows[:2], second: rows[2:]}, indent=1))
    config = configured(file)
    assert [record["prompt"] for _, record in local_split(config, "train").records()] == [
        "a",
        "b",
    ]
    parts = [local_split(config, part) for part in ("train", "validation")]
    assert f"from 'train' in {file}" in parts[0].notes[0]
    assert list(parts[1].records()) == [(f"item 1 of {second!r} in {file}", rows[2])]
    assert parts[0].part != parts[1].part


def test_a_json_file_of_splits_without_one_to_validate_on_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "all.json"
    rows = [{"prompt": "a", "completion": "b"}]
    file.write_text(json.dumps({"val": rows, "test": rows}))
    with pytest.raises(UsageError, match="holds several splits: val, test"):
        local_split(configured(file), "train")
    # a column of this name is no split
    file.write_text(json.dumps({"train": ["a"] * 3, "text": ["b"] * 3}))
    assert "text (text)" in local_split(configured(file), "train").notes[0]


def test_the_first_record_need_not_be_a_sound_one(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"about": "this file"}, {"prompt": "a", "completion": "b"}]
    config = configured(write(tmp_path / "rows.jsonl", *rows), skip_bad_rows=True)
    assert examples(config, tokenizer) == [None, Pair("a", " b")]

import copy
import dataclasses
import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from torch._utils import ExceptionWrapper  # what a DataLoader takes a worker's error home in
from transformers import PreTrainedTokenizerFast

from llama_recipes_local.data.token_rows import IGNORE_INDEX
from llama_recipes_local.datasets import tokenized_splits
from llama_recipes_local.datasets.base import Split
from llama_recipes_local.datasets.examples import Example, Marked, Pair
from llama_recipes_local.datasets.tokenized_splits import (
    UNKNOWN,
    Loaded,
    load_samples,
    load_split,
    stream_split,
    tokenizer_hash,
)
from llama_recipes_local.errors import RecordError, UsageError
from llama_recipes_local.records.any_format import records
from llama_recipes_local.records.checked_values import Record

ROWS = [{"q": f"what is {number}", "a": f"it is {number}"} for number in range(8)]


@dataclasses.dataclass(frozen=True)
class Questions:
    """A question and its answer; the prompt's form is an option."""

    form: str = "{}: "

    def __call__(self, record: Record, tokenizer: Any) -> Example | None:
        _, values = record
        if values["a"] == "text":
            return Marked(values["q"])
        if values["a"] == "unmarked":
            return Marked(values["q"], ())
        return Pair(self.form.format(values["q"]), values["a"]) if values["a"] else None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    write(path, ROWS)
    return path


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture
def load(file: Path, tmp_path: Path, tokenizer: Any) -> Any:
    def load(part: str = "all", form: str = "{}: ", limit: int | None = None) -> Loaded:
        def read() -> Iterator[Record]:
            return records(file)

        split = Split((file,), part, read, Questions(form))
        return load_split(split, tokenizer, limit, str(tmp_path / "cache"))

    return load


def test_rows_are_the_encoded_pairs(load: Any, tokenizer: Any):
    loaded = load()
    prompt = tokenizer.encode(f"{tokenizer.bos_token}what is 3: ", add_special_tokens=False)
    response = tokenizer.encode(f"it is 3{tokenizer.eos_token}", add_special_tokens=False)
    assert len(loaded.rows) == 8
    assert loaded.rows[3]["input_ids"] == prompt + response
    assert loaded.rows[3]["labels"] == [IGNORE_INDEX] * len(prompt) + response
    assert loaded.audit.label_tokens == int(loaded.rows.label_counts.sum())


def test_text_that_the_tokenizer_has_no_tokens_for_is_counted(tmp_path: Path):
    words = {"<unk>": 0, "</s>": 1, "what": 2, "is": 3, "it": 4}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    own = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")
    file = tmp_path / "rows.jsonl"
    write(file, [{"q": "what is", "a": answer} for answer in ("it", "cat", "it")])
    split = Split((file,), "all", lambda: records(file), Questions("{} "))
    assert load_split(split, own, None, str(tmp_path)).audit.counts.notes == {UNKNOWN: 1}


def test_a_second_load_is_from_the_cache(load: Any):
    assert load().how == "made"
    assert load().how == "from cache"


@pytest.mark.parametrize("stem", ["n" * 248, "名" * 82], ids=["English", "Chinese"])
def test_a_file_may_have_the_longest_name(stem: str, tmp_path: Path, tokenizer: Any):
    file = tmp_path / f"{stem}.jsonl"
    write(file, ROWS)
    split = Split((file,), "all", lambda: records(file), Questions("{}: "))
    loaded = [load_split(split, tokenizer, None, str(tmp_path / "cache")) for _ in range(2)]
    assert [each.how for each in loaded] == ["made", "from cache"]


def test_a_touched_file_is_a_hit(load: Any, file: Path):
    load()
    file.touch()
    assert load().how == "from cache"


def test_a_changed_row_is_a_miss(load: Any, file: Path):
    load()
    write(file, [*ROWS[:-1], {"q": "what is 7", "a": "it is 8"}])
    assert load().how == "made"


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        ("tokenizer", "chat_template", "{{ messages }}"),
        ("loading", "FORMAT", 0),
        ("loading", "__version__", "another"),
    ],
)
def test_another_tokenizer_or_version_is_a_miss(
    load: Any, owner: str, name: str, value: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
):
    load()
    monkeypatch.setattr({"tokenizer": tokenizer, "loading": tokenized_splits}[owner], name, value)
    assert load().how == "made"


@pytest.mark.parametrize("change", [{"part": "some"}, {"form": "{}? "}, {"limit": 5}])
def test_what_the_tokens_depend_on_is_in_the_key(load: Any, change: dict[str, Any]):
    load()
    assert load(**change).how == "made"


def test_a_tokenizers_template_and_rules_are_in_its_hash(tokenizer: Any, monkeypatch: Any):
    before = tokenizer_hash(tokenizer)
    tokenizer(["one", "another text"], padding=True, truncation=True, max_length=4)
    assert tokenizer.backend_tokenizer.padding is not None
    assert tokenizer_hash(tokenizer) == before
    assert tokenizer.backend_tokenizer.padding is not None
    for change in ({"eos_token": "<s>"}, {"additional_special_tokens": ["<more>"]}):
        other = copy.deepcopy(tokenizer)
        other.add_special_tokens(change)
        assert tokenizer_hash(other) != before
    merged = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>"
    )
    assert tokenizer_hash(merged) != before
    monkeypatch.setattr(tokenizer, "chat_template", "{{ messages }}")
    assert tokenizer_hash(tokenizer) != before


def test_what_is_skipped_or_truncated_is_counted(load: Any, file: Path):
    rows = [
        ROWS[0],
        {"q": "blank", "a": ""},
        {"q": "no label here", "a": "unmarked"},
        {"q": "a prompt that goes on and on " * 9, "a": "short"},
        {"q": "a text that goes on and on " * 9, "a": "text"},
    ]
    write(file, rows)
    loaded = load(limit=40)
    counts = loaded.audit.counts
    assert (counts.records, counts.blank, counts.without_label) == (5, 1, 1)
    assert (counts.truncated, counts.divided) == (1, 1)
    assert loaded.rows.lengths.max() == loaded.audit.longest <= 40


def test_truncation_keeps_the_response(load: Any, file: Path, tokenizer: Any):
    write(file, [{"q": "a prompt that goes on and on " * 9, "a": "the whole answer"}])
    row = load(limit=40).rows[0]
    labels = [label for label in row["labels"] if label != IGNORE_INDEX]
    assert tokenizer.decode(labels, skip_special_tokens=True) == "the whole answer"


def test_an_error_in_a_record_leaves_no_entry(load: Any, file: Path, tmp_path: Path):
    file.write_text(file.read_text() + '{"q": "half', "utf-8")
    with pytest.raises(UsageError, match="line 9"):
        load()
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_a_cache_that_cannot_be_written_is_reported(file: Path, tmp_path: Path, tokenizer: Any):
    (tmp_path / "taken").write_text("a file")
    split = Split((file,), "all", lambda: records(file), Questions())
    with pytest.raises(UsageError, match="--data_cache"):
        load_split(split, tokenizer, None, str(tmp_path / "taken"))


def test_a_full_disk_is_reported(load: Any, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tokenized_splits, "cached", full)
    with pytest.raises(UsageError, match=r"free space there, .* --data_cache DIR"):
        load()


def test_a_stream_gives_the_rows_of_the_file(load: Any, file: Path, tokenizer: Any):
    split = Split((file,), "all", lambda: records(file), Questions())
    streamed = list(stream_split(split, tokenizer).open_pass(0))
    assert streamed == [
        {"input_ids": row["input_ids"], "labels": row["labels"]} for row in load().rows
    ]


def test_samples_made_elsewhere_are_truncated_and_counted():
    long = {"input_ids": list(range(10)), "labels": [IGNORE_INDEX] * 7 + [7, 8, 9]}
    unlabelled = {"input_ids": [1, 2], "labels": [1, IGNORE_INDEX]}
    loaded = load_samples([long, unlabelled], 6)
    assert [row["labels"][-3:] for row in loaded.rows] == [[7, 8, 9]]
    assert (loaded.audit.counts.truncated, loaded.audit.counts.without_label) == (1, 1)


@pytest.mark.parametrize("in_a_worker", [False, True])
def test_an_invalid_record_of_a_stream_is_reported_without_a_traceback(
    in_a_worker: bool, file: Path, tokenizer: Any
):
    write(file, ROWS * 40)
    file.write_text(file.read_text() + '{"q": "half', "utf-8")
    stream = stream_split(Split((file,), "all", lambda: records(file), Questions()), tokenizer)
    with pytest.raises(RecordError) as caught:
        try:
            list(stream.open_pass(0))
        except RecordError:
            if in_a_worker:
                ExceptionWrapper(where="in DataLoader worker process 0").reraise()
            raise
    first, second, *_ = str(caught.value).splitlines()
    assert first == "stopped at an invalid record:"
    assert second == f"line 321 of {file} is not JSON"
    assert "Traceback" not in str(caught.value)
    assert caught.value.EXIT_CODE == 2


@pytest.mark.parametrize(
    ("sample", "why"),
    [
        ("a text", "it is 'a text'"),
        ({"input_ids": [1, 2]}, "it is {'input_ids': [1, 2]}"),
        ({"input_ids": [1, 2], "labels": [1, 2, 3]}, "input_ids has 2 tokens, labels has 3 tokens"),
    ],
)
def test_what_is_not_a_sample_is_reported(sample: Any, why: str):
    good = {"input_ids": [1, 2], "labels": [1, 2]}
    with pytest.raises(UsageError) as caught:
        load_samples([good, sample])
    (problem,) = caught.value.problems
    assert problem.what == "sample 2 of the data set cannot be trained on"
    assert problem.why == why

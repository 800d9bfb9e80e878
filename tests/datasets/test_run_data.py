import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llama_recipes_local import configs
from llama_recipes_local.data.streaming import SampleStream
from llama_recipes_local.data.token_rows import TokenRows
from llama_recipes_local.datasets.prompt_template import PROMPT, PromptTemplate
from llama_recipes_local.datasets.run_data import _beginning, prepare_data
from llama_recipes_local.errors import UsageError
from llama_recipes_local.models import AutoTokenizer
from llama_recipes_local.run import Run, activate
from llama_recipes_local.run.record import AUDIT_FILE
from llama_recipes_local.utils.dataset_utils import get_preprocessed_dataset

ROWS = [{"prompt": f"{number} and one is ", "completion": str(number + 1)} for number in range(9)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def local_run(tmp_path: Path, model: Path, train: Any, validation: Any, **fields: Any) -> Run:
    data = configs.local_dataset(
        data_path=write(tmp_path / "rows.jsonl", train),
        validation_path=write(tmp_path / "others.jsonl", validation),
        **fields,
    )
    settings = configs.train_config(dataset="local_dataset", model_name=str(model))
    return Run({}, train=settings, dataset=data)


def test_main_gets_what_was_prepared(tmp_path: Path, tiny_model: Path):
    run = local_run(tmp_path, tiny_model, ROWS, ROWS[:2])
    run.data = prepare_data(run)
    with activate(run):
        for part in ("train", "test"):
            assert get_preprocessed_dataset(None, run.dataset, part) is run.data.splits[part]


def test_the_audit_is_printed_and_saved(tmp_path: Path, tiny_model: Path):
    rows = [*ROWS, ROWS[0], {"prompt": "blank", "completion": " "}]
    data = prepare_data(local_run(tmp_path, tiny_model, rows, ROWS[:2]))
    data.save(tmp_path)
    saved = json.loads((tmp_path / AUDIT_FILE).read_text())
    assert saved["train"]["counts"]["records"] == 11
    assert saved["train"]["counts"]["blank"] == 1
    assert (saved["train"]["rows"], saved["train"]["repeated"]) == (10, 1)
    assert saved["validation_rows_in_training"] == 2
    assert "  repeated                                 1               0" in str(data)


def test_columns_that_are_left_out_are_printed_with_how_many_rows_have_them(
    tmp_path: Path, tiny_model: Path
):
    rows = [ROWS[0] | {"id": 1, "tag": ""}, ROWS[1] | {"id": None, "tag": "x"}, ROWS[2] | {"id": 3}]
    for _ in range(2):  # made, and from the cache
        data = prepare_data(local_run(tmp_path, tiny_model, rows, ROWS[:2]))
        lines = str(data).splitlines()
        assert lines[lines.index("not as in the records:") + 1 :] == [
            "  column 'id': 2 of train, 0 of validation",
            "  column 'tag': 1 of train, 0 of validation",
        ]
    data.save(tmp_path)
    saved = json.loads((tmp_path / AUDIT_FILE).read_text())
    assert saved["train"]["counts"]["notes"] == {"column 'id'": 2, "column 'tag'": 1}
    assert "not as in" not in str(prepare_data(local_run(tmp_path, tiny_model, ROWS, ROWS[:2])))


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("Correct: {}\n", r"'Correct: {}\n'"),
        ("It's " + "long " * 20, "\"It's " + "long " * 10 + '..."'),
    ],
)
def test_the_beginning_of_a_prompt_ends_with_its_quotation_mark(template: str, shown: str):
    assert _beginning(PromptTemplate(PROMPT, template)) == shown


def test_upstreams_sets_keep_their_prompts_and_say_so(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "a.csv").write_text("input,target\nI is,I am\n")
    data = configs.grammar_dataset(
        train_split=str(tmp_path / "a.csv"), test_split=str(tmp_path / "a.csv")
    )
    models = [tiny_model, tmp_path / "instruct"]
    shutil.copytree(tiny_model, models[1])
    (models[1] / "chat_template.jinja").write_text("{{ messages[0].content }}")
    prompts = []
    for model in models:
        settings = configs.train_config(dataset="grammar_dataset", model_name=str(model))
        made = prepare_data(Run({}, train=settings, dataset=data))
        prompts.append(made.prompt_template)
        said = "--> prompts: those of grammar_dataset, 'Correct this" in capsys.readouterr().out
        assert said == (model != tiny_model)
    assert prompts[0] == prompts[1]


def test_rows_are_truncated_to_the_context(tmp_path: Path, tiny_model: Path):
    run = local_run(tmp_path, tiny_model, ROWS, ROWS[:2])
    run.train.context_length = 6
    assert prepare_data(run).splits["train"].lengths.max() <= 6
    run.dataset.streaming = True
    (train, _) = prepare_data(run).splits.values()
    assert max(len(row["input_ids"]) for row in train.open_pass(0)) <= 6


def test_tokens_are_cached_where_the_flag_says(tmp_path: Path, tiny_model: Path):
    run = local_run(tmp_path, tiny_model, ROWS, ROWS[:2])
    run.train.data_cache = str(tmp_path / "here")
    prepare_data(run)
    kept = {path.name.split("-")[0] for path in (tmp_path / "here").iterdir() if path.is_dir()}
    assert kept == {"rows", "others"}


BLANK = {"prompt": "blank", "completion": ""}
WEIGHED = {"prompt": "weighed", "completion": "nothing", "weight": 0}


@pytest.mark.parametrize(
    ("part", "row", "why", "fix"),
    [
        ("train", BLANK, "3 blank, skipped", "fill in the responses, or name other data"),
        ("train", WEIGHED, "3 without a label, skipped", "give records a turn of the assistant's"),
        ("validation", BLANK, "3 blank, skipped", "fill in the responses, or name a file to"),
        ("validation", WEIGHED, "3 without a label, skipped", "--run_validation False"),
    ],
)
def test_a_part_without_labels_is_refused(
    tmp_path: Path, tiny_model: Path, part: str, row: dict[str, Any], why: str, fix: str
):
    parts = {"train": ROWS, "validation": ROWS} | {part: [row] * 3}
    run = local_run(tmp_path, tiny_model, *parts.values())
    with pytest.raises(UsageError, match=f"the {part} data .* has no label") as refused:
        prepare_data(run)
    (problem,) = refused.value.problems
    assert problem.why == f"3 records read, {why}" and fix in problem.fix
    assert ("responses" in problem.fix) == (row is BLANK)


def test_validation_data_may_be_empty_where_there_is_no_validation(
    tmp_path: Path, tiny_model: Path
):
    run = local_run(tmp_path, tiny_model, ROWS, [{"prompt": "blank", "completion": ""}])
    run.train.run_validation = False
    assert len(prepare_data(run).splits["train"]) == 9


def test_streamed_data_is_not_read_ahead(tmp_path: Path, tiny_model: Path):
    data = prepare_data(local_run(tmp_path, tiny_model, ROWS, ROWS, streaming=True))
    assert all(isinstance(split, SampleStream) for split in data.splits.values())
    assert data.audits == {}


CUSTOM = """
def get_custom_dataset(config, tokenizer, split):
    return [{"input_ids": [1, 2, 3], "labels": [-100, 2, 3], "attention_mask": [1, 1, 1]}] * 4
"""
COLLATOR = "def get_data_collator(tokenizer):\n    return lambda rows: rows\n"


@pytest.mark.parametrize(
    ("strategy", "collator", "audited"),
    [("packing", COLLATOR, True), ("padding", "", True), ("padding", COLLATOR, False)],
)
def test_custom_data_is_audited_unless_it_is_for_a_collator_of_its_own(
    tmp_path: Path, tiny_model: Path, strategy: str, collator: str, audited: bool
):
    (tmp_path / "mine.py").write_text(CUSTOM + collator)
    train = configs.train_config(
        dataset="custom_dataset", model_name=str(tiny_model), batching_strategy=strategy
    )
    dataset = configs.custom_dataset(file=str(tmp_path / "mine.py"))
    data = prepare_data(Run({}, train=train, dataset=dataset))
    assert isinstance(data.splits["train"], TokenRows) is audited
    assert ("train" in data.audits) is audited


def custom_run(tmp_path: Path, model: Path, source: str) -> Run:
    (tmp_path / "mine.py").write_text(source)
    train = configs.train_config(
        dataset="custom_dataset", model_name=str(model), context_length=2, max_train_step=1
    )
    return Run({}, train=train, dataset=configs.custom_dataset(file=str(tmp_path / "mine.py")))


def test_custom_rows_are_truncated_to_the_context(tmp_path: Path, tiny_model: Path):
    data = prepare_data(custom_run(tmp_path, tiny_model, CUSTOM))
    assert data.splits["train"].lengths.tolist() == [2] * 8
    assert data.audits["train"].counts.divided == 4
    del data.splits["test"]
    assert data.shared_rows == 0  # as if that part were left to a collator


def test_a_custom_stream_is_not_read_ahead(tmp_path: Path, tiny_model: Path):
    source = (
        "from torch.utils.data import IterableDataset\n"
        "class Endless(IterableDataset):\n"
        "    def __iter__(self): raise RuntimeError('read')\n"
        "def get_custom_dataset(config, tokenizer, split): return Endless()\n"
    )
    data = prepare_data(custom_run(tmp_path, tiny_model, source))
    assert data.audits == {}
    assert str(data).startswith("not audited")


CHAT = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}]
OPEN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


def with_template(folder: Path, model: Path, template: str) -> Path:
    shutil.copytree(model, folder)
    (folder / "chat_template.jinja").write_text(
        template + "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    return folder


def test_the_share_of_rows_that_stop_is_shown(tmp_path: Path, tiny_model: Path):
    data = prepare_data(local_run(tmp_path, tiny_model, ROWS, ROWS[:2]))
    line = "rows that end in a token that generation stops at: 100.0%, 100.0%"
    assert line in str(data).splitlines()
    assert "begin token" not in str(data)


def test_rows_of_which_none_stops_are_refused(tmp_path: Path, tiny_model: Path):
    model = with_template(tmp_path / "endless", tiny_model, OPEN)
    with pytest.raises(UsageError, match="none of the 2 training rows ends in a token"):
        prepare_data(local_run(tmp_path, model, CHAT * 2, CHAT))


def test_each_token_that_generation_stops_at_counts(tmp_path: Path, tiny_model: Path):
    """Also those of the folder that the tokenizer does not call its end."""
    model = with_template(tmp_path / "ends", tiny_model, OPEN.replace("{% endfor", "!{% endfor"))
    run = local_run(tmp_path, model, CHAT, CHAT)
    with pytest.raises(UsageError, match="none of the"):
        prepare_data(run)
    (end,) = AutoTokenizer.from_pretrained(model)("!", add_special_tokens=False)["input_ids"]
    ends = json.dumps({"eos_token_id": [2, end]})
    (model / "generation_config.json").write_text(ends)
    assert "stops at: 100.0%, 100.0%" in str(prepare_data(run))


def test_a_begin_token_that_is_missing_is_counted(tmp_path: Path, tiny_model: Path):
    ended = OPEN.replace("{% endfor", "{{ eos_token }}{% endfor")
    model = with_template(tmp_path / "ended", tiny_model, ended)
    text = str(prepare_data(local_run(tmp_path, model, CHAT * 2, CHAT)))
    assert f"{'  begin token missing':<28}{2:>16}{1:>16}" in text

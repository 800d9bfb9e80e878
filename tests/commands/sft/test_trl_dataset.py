"""The rows that TRL trains on are the ids and labels of ``finetuning.py``, and of references."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from llama_recipes_local.commands.sft import trl_trainer
from llama_recipes_local.commands.sft.sft_run import SftRun, preflight
from llama_recipes_local.data.token_rows import IGNORE_INDEX
from llama_recipes_local.datasets.run_data import prepare_data
from llama_recipes_local.errors import UsageError
from llama_recipes_local.models import AutoTokenizer
from llama_recipes_local.preflight import preflight_data

Rows = list[dict[str, Any]]
SAID = ["Hi, who are you?", "I am a model.", "Once upon a time", "Yes."]
TURNS = [
    {"role": role, "content": text}
    for role, text in zip(("user", "assistant") * 2, SAID, strict=True)
]
SHAREGPT = [{"from": "human", "value": SAID[0]}, {"from": "gpt", "value": SAID[1]}]
CALL = {"function": {"name": "f", "arguments": {"x": "y"}}}
TOOLS = [{"type": "function", "function": {"name": "f"}}]
THOUGHT = "<think>\nso\n</think>\n\nb"
# An instruct model's template that does not know of thoughts in earlier turns, or of tools.
CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture
def instruct(tmp_path: Path, tiny_model: Path) -> Path:
    """A model's folder with a chat template."""
    folder = shutil.copytree(tiny_model, tmp_path / "instruct")
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder


def saved(folder: Path, rows: Rows) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def started(model: Path, path: Path, *flags: str) -> SftRun:
    """A run that trains and validates on the same file."""
    words = ["--model_name_or_path", str(model), "--dataset_name", str(path), "--use_peft"]
    words += [f"--local_dataset.validation_path={path}", "--max_length", "128"]
    words += ["--output_dir", str(path.parent / "out")]
    return preflight([*words, "--data_cache", str(path.parent / "cache"), *flags])


def by_sft(model: Path, path: Path, *flags: str) -> Rows:
    made: Rows = trl_trainer.load_data(started(model, path, *flags))["train"].to_list()
    return made


def by_finetuning(model: Path, path: Path, *flags: str) -> Rows:
    given = dict(flag.removeprefix("--").split("=") for flag in flags)
    given |= {"local_dataset.data_path": str(path), "local_dataset.validation_path": str(path)}
    given |= {"model_name": str(model), "dataset": "local_dataset", "context_length": 128}
    rows = prepare_data(preflight_data((), given)).splits["train"]
    return [{name: row[name] for name in ("input_ids", "labels")} for row in rows]


def found_by(read: Callable[..., Rows], *arguments: Any) -> Rows | list[str]:
    """What is read, or what is wrong."""
    try:
        return read(*arguments)
    except UsageError as error:
        return [problem.what for problem in error.problems]


# Files of which one row is trained, and flags.
TRAINED: dict[str, tuple[Rows, tuple[str, ...]]] = {
    "text": ([{"text": " t ", "id": 1}], ()),
    "prompts": ([{"prompt": "p", "response": "r"}], ()),
    "instructions": ([{"instruction": "Do.", "input": "it", "output": "Done."}], ()),
    "turns": ([{"messages": TURNS}], ()),
    "all of the turns": ([{"messages": TURNS}], ("--local_dataset.labels=all",)),
    "another template": ([{"messages": TURNS}], ("--local_dataset.template=guanaco",)),
    "ShareGPT's turns with a system column": ([{"conversations": SHAREGPT, "system": "s"}], ()),
    "a history": ([{"instruction": "c", "output": "d", "history": [["a", "b"]]}], ()),
    "a turn that is not trained": (
        [{"messages": [TURNS[0], TURNS[1] | {"weight": 0}, *TURNS]}],
        (),
    ),
    "thoughts": ([{"messages": [TURNS[0], {"role": "assistant", "content": THOUGHT}]}], ()),
    "thoughts in a field": (
        [{"messages": [TURNS[0], TURNS[1] | {"reasoning_content": "so"}]}],
        (),
    ),
    "a tool's answer": ([{"messages": [*TURNS, {"role": "tool", "content": "7"}, TURNS[1]]}], ()),
    "a row without content": (
        [{"messages": TURNS}, {"messages": [TURNS[0] | {"content": None}]}],
        (),
    ),
    "a long row": ([{"prompt": "one " * 300, "completion": "two"}], ()),
    "bad rows that are left out": (
        [{"text": "a"}, {"text": 5}],
        ("--local_dataset.skip_bad_rows=True",),
    ),
}
REFUSED: dict[str, Rows] = {
    "two kinds of flaws": [{"text": "a"}, {"text": 5}, {"other": 1}, {"text": [1]}],
    "tool calls": [{"messages": [TURNS[0], TURNS[1] | {"tool_calls": [CALL]}]}],
    "tools": [{"messages": TURNS, "tools": TOOLS}],
    "an unknown speaker": [{"messages": [TURNS[0], {"role": "narrator", "content": "b"}]}],
    "a loss that is neither": [{"messages": [TURNS[0], TURNS[1] | {"loss": 0.5}]}],
    "preferences": [{"prompt": "a", "chosen": "b", "rejected": "c"}],
}


@pytest.mark.parametrize("name", TRAINED)
def test_rows_are_those_of_finetuning(name: str, instruct: Path, tmp_path: Path) -> None:
    rows, flags = TRAINED[name]
    path = saved(tmp_path, rows)
    made = by_sft(instruct, path, *flags)
    assert made == by_finetuning(instruct, path, *flags)
    assert len(made) == 1
    labels = [label for label in made[0]["labels"] if label != IGNORE_INDEX]
    assert 0 < len(labels) <= len(made[0]["input_ids"]) <= 128


@pytest.mark.parametrize("name", REFUSED)
def test_what_finetuning_refuses_is_refused(name: str, instruct: Path, tmp_path: Path) -> None:
    path = saved(tmp_path, REFUSED[name])
    what = found_by(by_sft, instruct, path)
    assert what == found_by(by_finetuning, instruct, path)
    assert len(what) == (2 if name == "two kinds of flaws" else 1)
    assert all(isinstance(each, str) for each in what)


def test_a_turn_that_is_not_trained_has_no_label(instruct: Path, tmp_path: Path) -> None:
    marked = [TURNS[0], TURNS[1] | {"train": False}, *TURNS[2:]]
    (row,) = by_sft(instruct, saved(tmp_path, [{"messages": marked}]))
    tokenizer = AutoTokenizer.from_pretrained(instruct)
    labels = [label for label in row["labels"] if label != IGNORE_INDEX]
    assert tokenizer.decode(labels) == f"{SAID[3]}{tokenizer.eos_token}"


def test_what_rows_leave_out_is_printed_from_the_cache_too(
    instruct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, [{"messages": [TURNS[0] | {"name": "Ann"}, TURNS[1]], "id": 1}])
    for _ in range(2):
        by_sft(instruct, path)
        out = capsys.readouterr().out
        for note in ("column 'id'", "'name' of turns"):
            assert re.search(f"{note}: 1 of train", out), out
        assert "rows that end in a token that generation stops at: 100.0%" in out


def test_the_cache_key_depends_on_contents(tiny_model: Path, tmp_path: Path) -> None:
    # as long as each other, so that only the contents tell
    found = [by_sft(tiny_model, saved(tmp_path, [{"text": text}])) for text in ("a", "b", "a")]
    assert found[0] == found[2] != found[1]


def test_the_cache_key_depends_on_labels(instruct: Path, tmp_path: Path) -> None:
    path = saved(tmp_path, [{"messages": TURNS}])
    some, every = by_sft(instruct, path), by_sft(instruct, path, "--local_dataset.labels", "all")
    assert some[0]["input_ids"] == every[0]["input_ids"]
    assert some[0]["labels"] != every[0]["labels"]


@pytest.mark.parametrize(
    ("flags", "every"),
    [
        ((), False),
        (("--completion_only_loss", "true"), False),
        (("--completion_only_loss", "false"), True),
        (("--local_dataset.labels", "all"), True),
    ],
)
def test_trls_flags_of_the_loss(
    flags: tuple[str, ...], every: bool, instruct: Path, tmp_path: Path
) -> None:
    path = saved(tmp_path, [{"prompt": "a", "completion": "b"}])
    run = started(instruct, path, *flags)
    (row,) = trl_trainer.load_data(run)["train"].to_list()
    assert (IGNORE_INDEX in row["labels"][1:]) != every
    assert not run.training.completion_only_loss and not run.training.assistant_only_loss


def test_a_column_of_text_by_trls_name(tiny_model: Path, tmp_path: Path) -> None:
    path = saved(tmp_path, [{"story": SAID[2], "text": "no"}])
    (row,) = by_sft(tiny_model, path, "--dataset_text_field", "story")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert tokenizer.decode(row["input_ids"], skip_special_tokens=True).strip() == SAID[2]


def test_data_without_a_usable_row(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing in .* is for the train part"):
        started(tiny_model, saved(tmp_path, [{"text": " "}, {"text": None}]))


def test_a_missing_path_is_fixed_by_sfts_own_flag(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        started(tiny_model, tmp_path / "none")
    assert caught.value.problems[0].fix.endswith("--dataset_name PATH")


@pytest.fixture
def llama2(tmp_path: Path, tiny_model: Path) -> Path:
    """A model's folder with a tokenizer.model alone, of Llama 2's settings."""
    folder = shutil.copytree(tiny_model, tmp_path / "llama2")
    for path in folder.glob("*token*"):
        path.unlink()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*SAID, "[INST] [/INST] <<SYS>>"] * 20),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("packing", [False, True])
def test_trls_batches_are_metas_format_of_a_chat(
    packing: bool, llama2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each exchange is begun, ended and encoded by itself; labels are the answers and their end."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(llama2 / "tokenizer.model"))
    ids: list[int] = []
    labels: list[int] = []
    for asked, answered in zip(SAID[::2], SAID[1::2], strict=True):
        prompt = [1, *pieces.encode(f"[INST] {asked} [/INST]")]
        both = [1, *pieces.encode(f"[INST] {asked} [/INST] {answered} "), 2]
        assert both[: len(prompt)] == prompt
        ids += both
        labels += [IGNORE_INDEX] * len(prompt) + both[len(prompt) :]
    found: list[Any] = []
    monkeypatch.setattr(
        trl_trainer.Trainer,
        "train",
        lambda trainer: found.extend(trainer.get_train_dataloader()) or exit_early(),
    )
    path = saved(tmp_path, [{"messages": TURNS}])
    flags = ["--local_dataset.template=llama2", "--packing", str(packing)]
    run = started(llama2, path, *flags)
    data = trl_trainer.load_data(run)
    with pytest.raises(InterruptedError):
        trl_trainer.train(run, data)
    (batch,) = found
    assert batch["input_ids"].tolist() == [ids]
    assert batch["labels"][0, 1:].tolist() == labels[1:]  # nothing predicts the first


def exit_early() -> None:
    raise InterruptedError

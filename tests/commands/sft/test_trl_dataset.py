"""The user's rows as TRL's data types."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from trl import SFTConfig

from llama_recipes_local import configs
from llama_recipes_local.commands.sft.trl_dataset import data_type, find, label_tokens, load
from llama_recipes_local.errors import UsageError

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]


# An instruct model's template that does not know of thoughts in earlier turns, or of tools.
CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def instruct(tiny_model: Path) -> Any:
    from llama_recipes_local.models import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = CHAT
    return tokenizer


def loaded_by(
    tokenizer: Any, folder: Path, rows: list[dict[str, Any]]
) -> tuple[str, list[dict[str, Any]]]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    config = configs.local_dataset(data_path=str(path), validation_path=str(path))
    part = find(config, True, tokenizer)
    made = load(part, "train", str(folder / "cache"), tokenizer).to_list()
    return data_type(part, tokenizer), made


def loaded(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> tuple[str, list[Any]]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    config = configs.local_dataset(data_path=str(path), validation_path=str(path), **settings)
    part = find(config, training=True)
    return data_type(part, None), load(part, "train", str(folder / "cache")).to_list()


@pytest.mark.parametrize(
    ("row", "settings", "kind", "expected"),
    [
        ({"text": " t ", "id": 1}, {}, "language modeling", {"text": " t "}),
        ({"messages": TURNS}, {}, "conversational", {"messages": TURNS}),
        ({"conversations": SHAREGPT}, {}, "conversational", {"messages": TURNS}),
        (
            {"prompt": "p", "response": "r"},
            {},
            "prompt-completion",
            {"prompt": "p", "completion": " r"},
        ),
        (
            {"input": "wrong", "target": "right"},
            {"columns": "prompt=input,completion=target"},
            "prompt-completion",
            {"prompt": "wrong", "completion": " right"},
        ),
    ],
)
def test_each_layout(
    row: dict[str, Any], settings: Any, kind: str, expected: Any, tmp_path: Path
) -> None:
    blank = dict.fromkeys(row)
    assert loaded(tmp_path, [row, blank], **settings) == (kind, [expected])


def test_instructions_get_alpacas_prompt(tmp_path: Path) -> None:
    kind, (row,) = loaded(tmp_path, [{"instruction": "Do.", "input": "", "output": "Done."}])
    assert kind == "prompt-completion"
    assert row["prompt"].endswith("### Instruction:\nDo.\n\n### Response:")
    assert row["completion"] == " Done."


def test_the_cache_key_depends_on_contents(tmp_path: Path) -> None:
    assert loaded(tmp_path, [{"text": "a"}])[1] == [{"text": "a"}]
    # as long as the first, so that only the contents tell
    assert loaded(tmp_path, [{"text": "b"}])[1] == [{"text": "b"}]
    assert loaded(tmp_path, [{"text": "a"}])[1] == [{"text": "a"}]


def test_a_bad_row_far_down_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, [{"text": "a"}, {"text": 5}])
    (problem,) = caught.value.problems
    assert problem.what == f"'text' in line 2 of {tmp_path / 'rows.jsonl'} is not text"


def test_data_without_a_usable_row(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no usable row"):
        loaded(tmp_path, [{"text": " "}, {"text": None}])


def test_a_missing_path_is_fixed_by_sfts_own_flag(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find(configs.local_dataset(data_path=str(tmp_path / "none")), training=True)
    (problem,) = caught.value.problems
    assert problem.fix.endswith("--dataset_name PATH")


@pytest.mark.parametrize(
    ("row", "asked", "expected"),
    [
        ({"text": "a"}, {}, "all tokens of each row"),
        ({"messages": TURNS}, {}, "all tokens of each row"),
        ({"messages": TURNS}, {"assistant_only_loss": True}, "the assistant's turns"),
        ({"prompt": "a", "completion": "b"}, {}, "the completions"),
        (
            {"prompt": "a", "completion": "b"},
            {"completion_only_loss": False},
            "all tokens of each row",
        ),
    ],
)
def test_label_tokens_are_described(
    row: dict[str, Any], asked: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(row)}\n" * 2)
    training = SFTConfig(output_dir="out", use_cpu=True, bf16=False, report_to="none", **asked)
    part = find(configs.local_dataset(data_path=str(path)), training=True)
    assert label_tokens(part, training, None) == expected


def test_a_chat_template_makes_turns_of_prompts(instruct: Any, tmp_path: Path) -> None:
    row = {"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]], "id": 1}
    kind, made = loaded_by(instruct, tmp_path, [row])
    assert kind == "conversational prompt-completion"
    before = [{"role": "system", "content": "s"}, *TURNS, {"role": "user", "content": "c"}]
    assert made == [{"prompt": before, "completion": [{"role": "assistant", "content": "d"}]}]


def test_what_rows_leave_out_is_printed_from_the_cache_too(
    instruct: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thinking = {"role": "assistant", "content": "b", "reasoning_content": "so"}
    row = {"messages": [TURNS[0] | {"name": "Ann"}, thinking], "id": 1}
    for _ in range(2):
        _, (made,) = loaded_by(instruct, tmp_path, [row])
        assert [turn["content"] for turn in made["messages"]] == [
            "a",
            "<think>\nso\n</think>\n\nb",
        ]
        out = capsys.readouterr().out
        for note in ("column 'id'", "'name' of turns", "thoughts of last turns"):
            assert re.search(f"not as in the records: {note}.*: 1\n", out), out


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"weight": 0}, "turns marked as not trained"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}, "tool calls"),
    ],
)
def test_what_turns_for_trl_have_no_place_for_is_refused(
    changed: Any, what: str, instruct: Any, tmp_path: Path
) -> None:
    row = {"messages": [TURNS[0], TURNS[1] | changed]}
    with pytest.raises(UsageError, match=f"line 1 of .* has {what}"):
        loaded_by(instruct, tmp_path, [row])

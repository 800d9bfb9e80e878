"""Marks in a record: what they leave untrained, and what is no mark."""

from typing import Any

import pytest
from helpers.made_examples import PLAIN, SYSTEM, example, labels, refused, turns

from llama_recipes_local.datasets.encoding import encode
from llama_recipes_local.datasets.templates import TEMPLATES


@pytest.mark.parametrize(
    "mark",
    [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss": False}, {"masked": True}],
)
@pytest.mark.parametrize("own", [PLAIN, TEMPLATES["chatml"].text])
def test_turns_that_are_marked_as_not_trained_are_no_labels(
    mark: Any, own: str, chatty: Any
) -> None:
    wrong = {"role": "assistant", "content": "Lyon."} | mark
    right = {"role": "assistant", "content": "Paris.", "weight": 1}
    record = turns("Capital?", wrong, "No.", right)
    assert labels(record, chatty, own) == ["Paris.<|im_end|>"]
    everything = "".join(labels(record, chatty, own, labels="all"))
    assert "Lyon" not in everything and "Capital?" in everything and "Paris." in everything
    assert example(record, chatty, own).notes == ()
    (sample,) = encode(chatty, [example(record, chatty, own)])
    assert chatty.decode([i for i in sample["labels"] if i >= 0]) == "Paris.<|im_end|>"


@pytest.mark.parametrize(
    ("mark", "what"),
    [
        ({"weight": 0.5}, "has weight 0.5"),
        ({"train": "perhaps"}, "has train 'perhaps'"),
        ({"weight": 0, "train": True}, "is marked as trained and as not trained"),
    ],
)
def test_marks_that_are_neither_yes_nor_no_are_refused(mark: Any, what: str, chatty: Any) -> None:
    problem = refused(turns("Hi", {"role": "assistant", "content": "Yo"} | mark), chatty, PLAIN)
    assert problem.what == f"turn 2 of 'messages' in line 1 of a.jsonl {what}"


def test_a_mark_on_a_users_turn_is_noted_or_obeyed(chatty: Any) -> None:
    marked = {"role": "user", "content": "Hi", "train": True}
    assert any(
        "marks on turns" in note for note in example(turns(marked, "Yo"), chatty, PLAIN).notes
    )
    left_out = turns({"role": "user", "content": "Hi", "train": False}, "Yo")
    assert "".join(labels(left_out, chatty, PLAIN, labels="all")) == (
        f"{SYSTEM}<|im_start|>assistant\nYo<|im_end|>\n".removeprefix(SYSTEM)
    )


@pytest.mark.parametrize(
    ("mark", "trained"),
    [
        ({"weight": 0}, False),
        ({"weight": "0.0"}, False),
        ({"sample_weight": 0}, False),
        ({"train": False}, False),
        ({"masked": True}, False),
        ({"weight": 1}, True),
        ({"weight": None}, True),
    ],
)
@pytest.mark.parametrize("kind", ["turns", "pair", "text", "everything"])
def test_a_record_that_is_marked_as_not_trained_has_no_label(
    mark: Any, trained: bool, kind: str, chatty: Any
) -> None:
    record = {
        "turns": turns("Hi", "Yo", "Hi", {"role": "assistant", "content": "Yo", "weight": 1}),
        "everything": turns("Hi", "Yo"),
        "pair": {"prompt": "Hi ", "completion": "Yo"},
        "text": {"text": "Hi"},
    }[kind] | mark
    how = {"labels": "all"} if kind == "everything" else {}
    made = example(record, chatty, PLAIN if kind in ("turns", "everything") else "", **how)
    (sample,) = encode(chatty, [made])
    assert any(label >= 0 for label in sample["labels"]) == trained
    assert made.notes == ()


def test_other_weights_of_a_record_are_refused_and_other_columns_are_named(chatty: Any) -> None:
    record = {"prompt": "Hi", "completion": "Yo"}
    problem = refused(record | {"weight": 0.5}, chatty, PLAIN)
    assert problem.what == "line 1 of a.jsonl has weight 0.5" and "rename it" in problem.fix
    both = refused(record | {"weight": 0, "train": True}, chatty, PLAIN)
    assert both.what == "line 1 of a.jsonl is marked as trained and as not trained"
    made = example(record | {"loss": 1.25, "train": "IC 204"}, chatty, PLAIN)
    assert set(made.notes) == {"column 'loss'", "column 'train'"}


def test_marks_of_a_historys_turns_are_obeyed(chatty: Any) -> None:
    earlier = turns("Spain?", {"role": "assistant", "content": "Lisbon.", "weight": 0})["messages"]
    record = {"prompt": "Italy?", "completion": "Rome.", "history": earlier, "system": "Be short."}
    assert labels(record, chatty, PLAIN) == ["Rome.<|im_end|>"]

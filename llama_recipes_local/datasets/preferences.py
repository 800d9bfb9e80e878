"""Refuses rows of good and bad answers, as for DPO and KTO, which are not trained here."""

import shlex
from collections.abc import Mapping
from typing import Any

from llama_recipes_local.datasets.column_names import columns_flag, jq_path, spelled
from llama_recipes_local.errors import refusal
from llama_recipes_local.records.checked_values import Record

_PAIRS = (
    ("chosen", "rejected"),
    ("preferred_output", "non_preferred_output"),
    ("chosen_response", "rejected_response"),
    ("accepted", "rejected"),
    ("response_j", "response_k"),
)
_ASKED = ("prompt", "question", "query", "instruction", "input", "conversations", "messages")
# What TRL and LLaMA-Factory call the mark of an answer that KTO is trained on.
_MARKS = ("label", "kto_tag", "desirable")
_WHY = "preferences (DPO, KTO, reward models) are not trained here, only one answer to a prompt"


def refuse_pair(record: Record) -> None:
    """Refuse a row of two answers, one of them better.

    Raises:
        UsageError: with the flag that trains the better answers.
    """
    where, values = record
    pair = pair_of(values)
    if not pair:
        return
    better, worse = pair
    raise refusal(
        f"{where} is a preference: {better} and {worse}",
        _WHY,
        f"to train on the better answers: {_better_answers(values, better)}",
    )


def _better_answers(values: Mapping[str, Any], better: str) -> str:
    """Return the flag or command that makes records of the better answers."""
    names = (spelled(name, values) for name in _ASKED)
    prompt = next((name for name in names if name and values[name]), "")
    if isinstance(values[better], str) and (not prompt or isinstance(values[prompt], str)):
        return columns_flag(
            {"prompt": prompt, "completion": better} if prompt else {"text": better}
        )
    if not prompt:
        return columns_flag({"messages": better})
    answer = jq_path(better)
    if isinstance(values[better], str):
        answer = f'{{role: "assistant", content: {answer}}}'
    asked = jq_path(prompt)
    if isinstance(values[prompt], str):
        asked = f'[{{role: "user", content: {asked}}}]'
    elif isinstance(values[prompt], Mapping):
        asked += ".messages"
    turns = answer if isinstance(values[better], list) else f"[{answer}]"
    program = shlex.quote(f"{{messages: ({asked} + {turns})}}")
    return f"jq -c {program} FILE.jsonl > chosen.jsonl"


def pair_of(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the columns of a better and a worse answer; None if a record has none."""
    for names in _PAIRS:
        better, worse = (spelled(name, values) for name in names)
        if better is not None and worse is not None:
            return better, worse
    return None


def refuse_bad_answer(record: Record, taken: set[str]) -> None:
    """Refuse a row whose answer is marked as bad.

    Args:
        record: the row.
        taken: columns that have another role.

    Raises:
        UsageError: with what trains only the good ones.
    """
    where, values = record
    for name, value in values.items():
        is_mark = str(name).strip().casefold() in _MARKS and name not in taken
        if is_mark and (value is False or (isinstance(value, str) and value.lower() == "false")):
            raise refusal(
                f"{where} has an answer that is marked as bad: {name!r} is {value}",
                _WHY,
                f"if {name!r} is no mark of the answer, rename the column",
            )

"""Refuses rows of public layouts that are not read, each with the command that makes rows of them.

``layouts`` asks where a record has no layout that is read.
"""

import shlex
from collections.abc import Mapping

from llama_recipes_local.datasets.column_names import jq_path, of_alternating, spelled
from llama_recipes_local.errors import refusal
from llama_recipes_local.records.checked_values import Record


def refuse_known(record: Record) -> None:
    """Refuse a row of a layout that is known and not read.

    Raises:
        UsageError: with what makes it one that is.
    """
    for refuse in (_refuse_calls, _refuse_answers, _refuse_segments, _refuse_words):
        refuse(record)


def _refuse_answers(record: Record) -> None:
    """Refuse a question with several answers, as SQuAD has them."""
    where, values = record
    column = spelled("answers", values)
    if column is None or not isinstance(values[column], list | Mapping):
        return
    first = ".text[0]" if isinstance(values[column], Mapping) else "[0]"
    program = shlex.quote(f".answer = {jq_path(column)}{first}")
    raise refusal(
        f"{where} has several answers in {column!r}",
        f"a record has one completion, and this is {values[column]!r:.80}",
        f"choose one, for example jq -c {program} FILE.jsonl > one.jsonl",
    )


def _refuse_calls(record: Record) -> None:
    """Refuse a question that is answered by calls of tools in JSON, as xLAM's."""
    where, values = record
    asked, calls = spelled("query", values), spelled("answers", values)
    if asked is None or calls is None or spelled("tools", values) is None:
        return
    given = jq_path(calls) + ("|fromjson" if isinstance(values[calls], str) else "")
    called = f'{{role: "assistant", tool_calls: ({given})}}'
    program = f'.messages = [{{role: "user", content: {jq_path(asked)}}}, {called}]'
    raise refusal(
        f"{where} has calls of tools in {calls!r}",
        f"calls are read in turns, and this is {values[calls]!r:.80}",
        f"make messages of them: jq -c {shlex.quote(program)} FILE.jsonl > chats.jsonl",
    )


def _refuse_segments(record: Record) -> None:
    """Refuse a text in segments with labels, as Axolotl's without a template."""
    where, values = record
    column = spelled("segments", values)
    if column is None or not isinstance(values[column], list):
        return
    path = jq_path(column)
    program = f"{{prompt: ({path}[:-1] | map(.text) | add), completion: {path}[-1].text}}"
    raise refusal(
        f"{where} is a text in {column!r}",
        "a record has one prompt and one completion, or turns",
        f"if the last one is the answer: jq -c {shlex.quote(program)} FILE.jsonl > pairs.jsonl",
    )


def _refuse_words(record: Record) -> None:
    """Refuse a list of alternating texts without speakers, as in UltraChat."""
    where, values = record
    for column, value in values.items():
        if isinstance(value, list) and len(value) > 1 and all(isinstance(x, str) for x in value):
            raise refusal(
                f"{where} has texts without speakers in {column!r}",
                f"who says which is not known: {value!r:.80}",
                f"if they take turns, make messages of them: {of_alternating(column)}",
            )

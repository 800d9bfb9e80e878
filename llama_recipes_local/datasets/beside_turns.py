"""Refuses columns beside a record's texts without which the model would learn something else."""

import re
import shlex
from collections.abc import Collection, Mapping

from llama_recipes_local.datasets.base import is_empty
from llama_recipes_local.datasets.column_names import jq_path, spelled
from llama_recipes_local.errors import refusal
from llama_recipes_local.records.checked_values import Record

_MEDIA = ("images", "videos", "audios")
_SWITCHES = "chat_template_kwargs"


def refuse_media(record: Record, taken: Collection[str]) -> None:
    """Refuse a record with images, videos or sounds, as LLaMA-Factory and TRL name them.

    Args:
        record: the record.
        taken: the columns of its texts.

    Raises:
        UsageError: with the column.
    """
    where, values = record
    for name in _MEDIA:
        column = spelled(name, values)
        if column is not None and column not in taken and not is_empty(values[column]):
            raise refusal(
                f"{where} has {column!r}",
                f"texts are trained alone, and here they speak of {values[column]!r:.80}",
                "leave such rows out: --local_dataset.skip_bad_rows=True, or remove the column",
            )


def refuse_switches(record: Record, template: str) -> None:
    """Refuse a record that sets something which the chat template reads, as TRL's rows may.

    Args:
        record: the record.
        template: the Jinja template.

    Raises:
        UsageError: with how the template sets it for training and for prompts alike.
    """
    where, values = record
    column = spelled(_SWITCHES, values)
    given = values[column] if column is not None else None
    if not isinstance(given, Mapping):
        return
    read = {name: v for name, v in given.items() if re.search(rf"\b{re.escape(name)}\b", template)}
    if read:
        sets = " ".join(f"{{%- set {name} = {value!r} -%}}" for name, value in read.items())
        program = shlex.quote(f"del({jq_path(str(column))})")
        raise refusal(
            f"{where} sets {', '.join(read)} of the chat template in {column!r}",
            "prompts for generation would be written without it",
            f"begin chat_template.jinja in the model's folder with {sets}, and remove the column: "
            f"jq -c {program} FILE.jsonl > rows.jsonl",
        )

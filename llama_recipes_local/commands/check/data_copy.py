"""Checks that a data set's files are complete, by reading all records as training would."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path

from llama_recipes_local.errors import Problem, caught, door
from llama_recipes_local.records.any_format import format_of, records
from llama_recipes_local.records.seven_zip import members, read_member
from llama_recipes_local.records.source import Source, is_seven_zip


def check_records(path: Path) -> Iterator[Problem]:
    """Yield what keeps a data file's records from being read; of other files nothing."""
    with caught() as problems, door(f"{path} cannot be read", "copy the file again"):
        if is_seven_zip(path):
            for name in members(path):
                read_member(path, name)
        elif format_of(path.name):
            deque(records(Source(path)), maxlen=0)
    yield from problems

"""Marks that tell whether something is trained: ``weight: 0`` of a turn, or of a whole record."""

from collections.abc import Mapping
from typing import Any

from llama_recipes_local.errors import refusal

# Names of what says whether a turn is trained, and of what says that it is not.
MARKS = ("weight", "train", "training", "trainable", "loss", "loss_weight", "loss_mask")
NEGATED = ("masked",)
# Axolotl's marks of parts of a turn, which are not obeyed.
_OF_PARTS = ("train_detail", "training_detail")
# Of a record, a number under these is its weight; under the others it may be anything.
_WEIGHTS = ("weight", "loss_weight", "sample_weight")
_TRUE = (True, "true", "True", "TRUE", "1", "1.0")
_FALSE = (False, "false", "False", "FALSE", "0", "0.0")


def turn_mark(turn: Mapping[str, Any], what: str) -> bool | None:
    """Return whether a turn is marked as trained or not; None without a mark.

    Raises:
        UsageError: if a mark is neither yes nor no, of parts of the turn, or contradicts another.
    """
    parts = next((name for name in _OF_PARTS if turn.get(name)), "")
    if parts:
        raise refusal(
            f"{what} has {parts} {turn[parts]!r:.80}",
            "a turn is trained as a whole or not at all, and parts of it are marked",
            "mark turns with train: true or train: false, and remove it",
        )
    said = {name: turn[name] for name in (*MARKS, *NEGATED) if turn.get(name) is not None}
    for name, value in said.items():
        if not _is_mark(value):
            raise _neither(name, value, what, "turn")
    return _agreed(said, what)


def record_marks(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a record that mark whether it is trained.

    They have the names of a turn's mark, and the value 0, 1, false or true. A column with another
    value is something else, unless it is named as a weight.
    """
    names = {*MARKS, *NEGATED, *_WEIGHTS}
    return {
        name: value
        for name, value in values.items()
        if name in names and value not in (None, "") and (_is_mark(value) or name in _WEIGHTS)
    }


def is_trained(marks: Mapping[str, Any], where: str) -> bool:
    """Return whether a record is trained, by its marks.

    Raises:
        UsageError: if a mark is neither yes nor no, or marks contradict each other.
    """
    for name, value in marks.items():
        if not _is_mark(value):
            raise _neither(name, value, where, "record")
    return _agreed(marks, where) is not False


def _is_mark(value: object) -> bool:
    return value in _TRUE or value in _FALSE


def _neither(name: str, value: object, what: str, kind: str) -> Exception:
    column = "; if the column is something else, rename it" if kind == "record" else ""
    return refusal(
        f"{what} has {name} {value!r:.80}",
        f"a {kind} is trained or it is not: 1 and true, or 0 and false",
        f"round {name} to 0 or 1{column}",
    )


def _agreed(marks: Mapping[str, Any], what: str) -> bool | None:
    said = {name: (value in _TRUE) != (name in NEGATED) for name, value in marks.items()}
    if len(set(said.values())) > 1:
        raise refusal(
            f"{what} is marked as trained and as not trained",
            ", ".join(f"{name} is {value!r}" for name, value in marks.items()),
            "keep one of them",
        )
    return next(iter(said.values()), None)

"""What a run measures: the files that it is logged in, and the steps of their lines."""

import json

METRICS_FILE = "metrics.jsonl"
EVALUATIONS_FILE = "evaluations.jsonl"


def step_of(line: bytes) -> int | None:
    """Return the step of a logged line; None if it is corrupt."""
    try:
        step = json.loads(line.decode("utf-8"))["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if type(step) is int and step >= 0 else None

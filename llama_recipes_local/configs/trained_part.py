"""What ``--train_only`` says."""

import re

LM_HEAD = "lm_head"
_LAST = re.compile(r"last:(\d+)", re.ASCII)


def last_layers(choice: str) -> int | None:
    """Return the N of ``last:N``, or None for another choice."""
    found = _LAST.fullmatch(choice)
    return int(found[1]) if found else None

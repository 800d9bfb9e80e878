"""Extracts the final number of a worked solution, by the two rules of lm-eval's ``gsm8k``."""

import re

STRICT, FLEXIBLE = "strict-match", "flexible-extract"
ENDS = ("Question:", "</s>", "<|im_end|>")
"""Texts that end a solution, as end tokens do."""
LONGEST = 256
"""Tokens of a solution."""

_NONE = "[invalid]"
_AFTER_MARK = re.compile(r"#### (\-?[0-9\.\,]+)")
_NUMBERS = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = (",", r"\$", r"(?s).*#### ", r"\.$")


def is_right(rule: str, solution: str, reference: str) -> bool:
    """Return whether a solution's final number equals the reference's.

    Args:
        rule: ``STRICT`` takes the first number after ``####``, ``FLEXIBLE`` the last number.
        solution: the model's.
        reference: the data set's.
    """
    if rule == STRICT:
        found = _AFTER_MARK.findall(solution)[:1]
    else:
        found = ["".join(groups) for groups in _NUMBERS.findall(solution)[-1:]]
    return _plain(found[0].strip() if found else _NONE) == _plain(reference)


def _plain(text: str) -> str:
    for pattern in _IGNORED:
        text = re.sub(pattern, "", text)
    return text.lower()

"""Runs many seeded cases of broken input, and reports each that is not refused in words.

``FUZZ`` of the environment multiplies the suite's number of cases (``make fuzz``), and
``FUZZ_SEED`` is the seed. A failure prints its seed and what was given; ``FUZZ_WHY`` prints what
cases are refused with.
"""

import json
import os
import random
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import pytest

from llama_recipes_local.errors import Problem, TrainingError, UsageError

TIMES = float(os.environ.get("FUZZ", "1"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
SLOWEST = 30
"""Seconds that a case may compute, whatever else the machine does; one that takes longer hangs."""
SHOWN = 5
WHY: Counter[str] = Counter()


class SilentError(AssertionError):
    """What was given is used in another way than it says."""


@dataclass
class Case:
    """A case of broken input.

    Attributes:
        random: its source of random numbers.
        given: what was made of them, for the report of a failure.
        problems: what it was refused with.
    """

    random: random.Random
    given: list[Any] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def fuzz(subject: str, cases: int, attack: Callable[[Case], object]) -> Counter[str]:
    """Run the cases of a subject; fail with those that end in a traceback, hang or are silent.

    Args:
        subject: a name, which is part of the seed.
        cases: how many the suite runs.
        attack: makes a case of its random numbers and runs it. What it raises but for the errors
            that commands report fails; problems that it keeps must be in words.
    """
    failures: list[str] = []
    ends: Counter[str] = Counter()
    for number in range(int(cases * TIMES)):
        seed = f"{subject} {SEED} {number}"
        case, trace = Case(random.Random(seed)), ""
        try:
            with _deadline():
                attack(case)
            end = "refused" if case.problems else "used"
        except (UsageError, TrainingError) as error:
            case.problems += getattr(error, "problems", [Problem(str(error), "it was raised")])
            end = "refused"
        except BaseException as error:  # a panic of Rust is none of Python's exceptions
            if isinstance(error, (KeyboardInterrupt, pytest.exit.Exception)):
                raise
            end = f"{type(error).__name__}: {str(error)[:200]}"
            trace = "".join(traceback.format_exception(error)[-6:])
        wrong = _not_in_words(case.problems) if end == "refused" else ""
        if end not in ("refused", "used") or wrong:
            ends["failed"] += 1
            failures.append(
                f"case {seed!r}: {end}\n{wrong or trace}\ngiven: {_beginning(case.given)}"
            )
        else:
            ends[end] += 1
            WHY.update(str(p)[:220] for p in case.problems)
    if failures:
        kinds = Counter(failure.split("'", 2)[-1].split("\n")[0] for failure in failures)
        pytest.fail(
            f"{len(failures)} of {sum(ends.values())} cases of {subject}; {dict(kinds)}\n\n"
            + "\n\n".join(failures[:SHOWN]),
            pytrace=False,
        )
    print(f"{subject}: {dict(ends)}")
    return ends


def _beginning(given: list[Any]) -> str:
    return repr(given)[:3000]


def _not_in_words(problems: list[Problem]) -> str:
    """Return a problem whose report no user could use."""
    for problem in problems:
        text = str(problem)
        if not problem.what or not (problem.why or problem.fix):
            return f"a problem without words: {text!r}"
        if not all(letter in "\n\t" or letter >= " " for letter in text):
            return f"a control character: {text!r}"
    return ""


@contextmanager
def _deadline() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise RuntimeError(f"it hangs: stopped after {SLOWEST} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SLOWEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# values that JSON can have and that programs do not expect
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308),
    *(float("nan"), float("inf"), float("-inf")),
    *(
        "",
        " ",
        "x",
        "true",
        "1",
        "\x1b[2J",
        "\x00",
        "\ud800",
        "a" * 5000,
        "中文",
        "../x",
        "/",
        "{}",
    ),
    *("{{ 7 * 7 }}", "https://example.com", "None", "auto", "float32", "__class__"),
    *([], {}, [[]], [1], ["a"], [None], {"": ""}, {"a": 1}, [{}], {"a": []}, ["a", 1, None]),
)


def hostile(rng: random.Random, depth: int = 0) -> Any:
    """Return a value that JSON can have, perhaps of several."""
    kind = rng.randrange(12 if depth < 3 else 8)
    if kind < 8:
        return rng.choice(HOSTILE)
    if kind < 9:
        value: Any = []
        for _ in range(rng.choice([10, 300, 3000])):
            value = [value] if rng.random() < 0.9 else {"a": value}
        return value
    if kind < 10:
        return [hostile(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind < 11:
        return {str(rng.choice(HOSTILE)): hostile(rng, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice(
        [rng.randrange(-(10**6), 10**6), rng.uniform(-10, 10), "é" * rng.randrange(9)]
    )


def changed_value(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """Return a JSON value with something in it replaced, removed or added."""
    within = depth < 6 and rng.random() < 0.75
    if isinstance(value, dict) and value and within:
        key = rng.choice(list(value))
        changed = dict(value)
        what = rng.randrange(10)
        if what == 0:
            del changed[key]
        elif what == 1:
            changed[str(rng.choice(HOSTILE))] = hostile(rng)
        else:
            changed[key] = changed_value(rng, value[key], depth + 1)
        return changed
    if isinstance(value, list) and value and within:
        place = rng.randrange(len(value))
        what = rng.randrange(8)
        if what == 0:
            return value[:place] + value[place + 1 :]
        if what == 1:
            return [*value, hostile(rng)]
        return [*value[:place], changed_value(rng, value[place], depth + 1), *value[place + 1 :]]
    return hostile(rng)


SPLICES = (
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\n", b"\n\n", b"\t", b'"', b"'"),
    *(b",", b";", b"\\", b"\\u", b"\\ud800", b"{", b"}", b"[", b"]", b"[" * 3000, b'{"a":' * 3000),
    *(b"NaN", b"Infinity", b"-", b"1e999", b"1" * 5000, b"null", b"\x1b[2J", b"\xd6\xd0", b"\x85"),
    *("\u2028".encode(), "\ufeff".encode(), b"<|endoftext|>", b"a" * 10000, b"=1+1", b"\x1a"),
)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Return bytes with some of them cut, changed, repeated, swapped or added."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        place, other = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        what = rng.randrange(8)
        if what == 0:
            data = data[:place]
        elif what == 1:
            data = data[:place] + data[other:]
        elif what == 2 and place < len(data):
            flipped = data[place] ^ (1 << rng.randrange(8))
            data = data[:place] + bytes([flipped]) + data[place + 1 :]
        elif what == 3:
            data = data[:other] + data[place:other] + data[other:]
        elif what == 4:
            data = data[:place] + bytes(min(other - place, 4096)) + data[other:]
        else:
            data = data[:place] + rng.choice(SPLICES) + data[place:]
    return data


def json_text(rng: random.Random, value: Any) -> bytes:
    """Return a value as JSON; a value that is nested deeper than Python writes by hand."""
    try:
        return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    except RecursionError:
        return b"[" * 100_000


def damaged_json(rng: random.Random, value: Any) -> bytes:
    """Return the text of a JSON value that is changed in its values, its bytes, or both."""
    how = rng.randrange(10)
    for _ in range(rng.choice([1, 1, 2, 4]) if how < 8 else 0):
        value = changed_value(rng, value)
    text = json_text(rng, value)
    return damaged(rng, text) if how >= 6 else text

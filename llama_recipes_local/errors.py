"""Errors of the user: all problems in one report, each with what, why and its fix."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

# those of terminals, and Unicode's that end a line or turn the direction of the text after them
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Return a text as a terminal may print it: control characters are shown, as ``\x1b``.

    They may come from data, from the name of a file, or from a model, and would move the cursor,
    clear the screen or set the window's title. Line ends and tabs stay.
    """
    # file names may have bytes that no stream can encode
    text = text.encode("utf-8", "backslashreplace").decode()
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def one_line(text: str) -> str:
    r"""Return a text as ``printable`` does, in one line: a file's name may contain line ends.

    Otherwise a name could add lines to a message that look as if this program had written them.
    """
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")


@dataclass(frozen=True)
class Problem:
    """One thing that keeps a command from running.

    Attributes:
        what: what was given or found, with paths resolved.
        why: why it cannot work.
        fix: the flag or command that fixes it; empty if there is none, or ``why`` says it.
    """

    what: str
    why: str
    fix: str = ""

    def or_else(self, alternative: str) -> "Problem":
        """Return the problem with another way to fix it."""
        return replace(self, fix=f"{self.fix}, or {alternative}" if self.fix else alternative)

    def __str__(self) -> str:
        lines = [self.what, f"   why: {self.why}", f"   fix: {self.fix}" if self.fix else ""]
        return "\n".join(one_line(line) for line in lines if line)


class UsageError(ValueError):
    """A user's mistake; a command prints it and exits with ``EXIT_CODE``, without a traceback."""

    EXIT_CODE = 2

    def __init__(self, problems: Sequence[Problem], outcome: str = "nothing was started") -> None:
        self.problems, self.outcome = list(problems), outcome
        count = len(self.problems)
        noun = "problem" if count == 1 else "problems"
        listed = "\n".join(f"{i}. {problem}" for i, problem in enumerate(self.problems, 1))
        super().__init__(f"{count} {noun} found, {outcome}:\n{listed}")

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the problems, without a traceback."""
        return str(self).splitlines()

    def __reduce__(self) -> tuple[type["UsageError"], tuple[object, ...]]:
        # it may be raised in a worker process
        return UsageError, (self.problems, self.outcome)


def refusal(what: str, why: str, fix: str = "") -> UsageError:
    """Return the error with a single problem."""
    return UsageError([Problem(what, why, fix)])


def refuse(problems: Sequence[Problem], outcome: str = "nothing was started") -> None:
    """Raise a ``UsageError`` with the problems that were found, if any.

    Args:
        problems: the problems.
        outcome: what became of what the user asked for.

    Raises:
        UsageError: with all problems, if there are any.
    """
    if problems:
        raise UsageError(problems, outcome)


@contextlib.contextmanager
def door(what: str, fix: str = "") -> Iterator[None]:
    """Refuse what a user pointed at if a library cannot read it, whatever the library raises.

    Each call of a library that reads a user's file is behind this door. Libraries raise another
    error for each thing that may be wrong in a file, RecursionError and panics of Rust among them.

    Args:
        what: the file, and that it cannot be read.
        fix: what the user can do then.

    Raises:
        UsageError: with the problem; one that is raised within passes.
    """
    try:
        yield
    except (UsageError, TrainingError):
        raise
    except BaseException as error:
        # pyo3's PanicException is no Exception, and cannot be imported
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise refusal(what, reason(error), fix) from error


@contextlib.contextmanager
def caught() -> Iterator[list[Problem]]:
    """Collect the problems of a ``UsageError`` that the block raises."""
    problems: list[Problem] = []
    try:
        yield problems
    except UsageError as error:
        problems += error.problems


def reason(error: BaseException) -> str:
    """Return what an error says, in a line, and its kind where its text alone is no sentence."""
    if "trust_remote_code" in str(error):
        return "it needs Python code of its own, which is never run"
    said = str(error)
    if isinstance(error, OSError) and error.strerror:  # without its number
        said = ": ".join(str(each) for each in (error.strerror, error.filename) if each)
    text = " ".join(said.split("\n\n")[0].split())[:300]
    speaks = isinstance(error, (OSError, ValueError)) and text
    return text if speaks else f"{type(error).__name__}: {text}".removesuffix(": ")


class TrainingError(RuntimeError):
    """Training cannot continue; a command prints it and exits with ``EXIT_CODE``, no traceback."""

    EXIT_CODE = 1

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the message, without a traceback."""
        return str(self).splitlines()


class InterruptedRun(TrainingError):  # noqa: N818 (not an error)
    """A run was stopped by a signal, and can be resumed.

    Its exit code is that of a temporary failure, EX_TEMPFAIL of ``sysexits.h``: a scheduler may
    start the run again.
    """

    EXIT_CODE = 75


class RecordError(TrainingError):
    """A record that is read during training cannot be used; the user's mistake."""

    EXIT_CODE = UsageError.EXIT_CODE

    def __init__(self, message: str) -> None:
        # a DataLoader raises a worker's error again, with the message after its traceback
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())

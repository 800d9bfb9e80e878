"""What a field of a configuration declares: its type, its facts, and a docstring below it.

For example ``lr: Annotated[float, ABOVE_0, Resume.SCHEDULE] = 1e-4``:

- The value of a flag is converted to the type; see ``field_values``.
- The facts are what the rest of the package needs to know about the field: which values it takes
  (``Range``, ``Choices``, ``FOLDER`` or ``TEXT``), what it needs to have an effect (``Needs``),
  whether a resumed run may change it (``Resume``), which commands read it from a run's record
  (``EVALUATION``, ``SELECTS_PARAMETERS``), and whether repeating a run leaves it out
  (``OF_ONE_RUN``).
- The docstring is what ``--help`` prints.

Importing torch takes seconds, so a field whose type is torch's is declared without it: the type is
a ``LibraryType``, the default a ``LibraryDefault``.
"""

import ast
import enum
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, dataclass, replace
from dataclasses import fields as dataclass_fields
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Range:
    """The numbers that a field takes.

    Attributes:
        words: the range, as in "it must be ...".
        holds: returns whether a number is in it.
        otherwise: what to do instead; "" is to give a number that is in it.
        switch: a field of the same configuration that must be on for the range to apply; "" if it
            always applies.
    """

    words: str
    holds: Callable[[float], bool]
    otherwise: str = ""
    switch: str = ""

    def when(self, switch: str) -> "Range":
        """Return the range for a field that is ignored while the field ``switch`` is off."""
        return replace(self, switch=switch)


ABOVE_0 = Range("above 0", lambda number: number > 0)
AT_LEAST_0 = Range("0 or more", lambda number: number >= 0)
AT_LEAST_1 = Range("1 or more", lambda number: number >= 1)
SHARE = Range("from 0 to 1", lambda number: 0 <= number <= 1)
BITS_64 = Range("a number of 64 bits", lambda number: -(2**63) <= number < 2**63)


class Choices:
    """The values that a field takes; of a list, each of its elements.

    Args:
        *values: the values.
        source: more of them, as "module:NAME" below this package: a tuple, or a dict that has them
            for keys. The module is imported when they are asked for, so that a configuration can
            name what is built on it.
        any_case: whether upper and lower case mean the same; the values, or those in ``also``, are
            lower-case.
        also: other words for them, which are taken and not listed.
        otherwise: what to do instead, where no value is near; "" is to give one of the first two.
    """

    def __init__(
        self,
        *values: bool | str | None,
        source: str = "",
        any_case: bool = False,
        also: Iterable[str] = (),
        otherwise: str = "",
    ) -> None:
        self._values = values
        self.source = source
        self.any_case = any_case
        self.also = frozenset(also)
        self.otherwise = otherwise

    @property
    def values(self) -> tuple[bool | str | None, ...]:
        """The values, in the order in which they are listed to the user."""
        if not self.source:
            return self._values
        module, _, name = self.source.partition(":")
        return (*self._values, *getattr(import_module(f"{__package__}.{module}"), name))


class Needs:
    """What must be set for a field to have an effect; given without it, it is refused.

    Args:
        *settings: fields of any configuration of the run, of which one is enough: "name" if it must
            be on, "name=value" if it must be that, or a list that has it.
        why: what would happen otherwise.
    """

    def __init__(self, *settings: str, why: str = "it would be ignored") -> None:
        self.settings = settings
        self.why = why


WITH_FSDP = Needs("enable_fsdp")


class Resume(enum.Enum):
    """What must be equal for a run to be resumed: the kinds that ``--resume_despite`` names.

    The seed, for one, is part of DATA: with another seed the rows come in another order. TOKENIZER
    and MODEL are compared by hashes of what a folder contains, so that folders may move. FREE is
    what may always differ.
    """

    DATA = "data"
    TOKENIZER = "tokenizer"
    BATCH = "batch"
    MODEL = "model"
    METHOD = "method"
    SCHEDULE = "schedule"
    FREE = "free"


class Fact(enum.Enum):
    """A property that a field has or does not have; see the names below."""

    FOLDER = "folder"
    TEXT = "text"
    EVALUATION = "evaluation"
    SELECTS_PARAMETERS = "selects_parameters"
    OF_ONE_RUN = "of_one_run"
    AUTOMATIC = "automatic"


FOLDER = Fact.FOLDER
"""The path of a folder or file on this machine: a ``~`` is expanded."""
TEXT = Fact.TEXT
"""A name, or any other text that is taken as it is."""
EVALUATION = Fact.EVALUATION
"""The loss on the validation data depends on it: ``evaluate`` reads it from a run's record."""
SELECTS_PARAMETERS = Fact.SELECTS_PARAMETERS
"""It decides which of the model's own parameters are trained: ``convert`` reads it from a run's
record, to take the others from the base model."""
OF_ONE_RUN = Fact.OF_ONE_RUN
"""It belongs to one run, or to its machine: a run that repeats a record does not take it."""
AUTOMATIC = Fact.AUTOMATIC
"""A flag may say "auto": preflight chooses a value of the field's type, see ``Run.automatic``."""


@dataclass(frozen=True)
class Facts:
    """What a field's annotation says in addition to its type.

    Attributes:
        resume: whether a resumed run may change it; None if it does not say.
        range: the numbers it takes; None if it does not say.
        choices: the values it takes; None if it does not say.
        needs: what must be set for it to have an effect; None if nothing must.
        marks: the other facts.
    """

    resume: Resume | None = None
    range: Range | None = None
    choices: Choices | None = None
    needs: Needs | None = None
    marks: frozenset[Fact] = frozenset()

    @classmethod
    def of(cls, annotation: object) -> "Facts":
        """Return the facts in a field's annotation."""
        found = typing.get_args(annotation)[1:] if _is_annotated(annotation) else ()

        def only(kind: type) -> Any:
            return next((fact for fact in found if isinstance(fact, kind)), None)

        marks = frozenset(fact for fact in found if isinstance(fact, Fact))
        return cls(only(Resume), only(Range), only(Choices), only(Needs), marks)


def facts(config: type | object) -> dict[str, Facts]:
    """Return the facts of a configuration's fields, by name, in their order; not to be changed."""
    return _facts(config if isinstance(config, type) else type(config))


@cache
def _facts(cls: type) -> dict[str, Facts]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: Facts.of(annotation) for name, annotation in hints.items()}


def fields_with(config: type | object, fact: Fact | Resume) -> list[str]:
    """Return the names of the fields that have a fact, in their order."""
    return [
        name for name, known in facts(config).items() if fact in known.marks or fact is known.resume
    ]


def _is_annotated(annotation: object) -> bool:
    return typing.get_origin(annotation) is typing.Annotated


def descriptions(cls: type) -> dict[str, str]:
    """Return the docstrings of a configuration's fields, each in a line, in the fields' order.

    Fields that only repeat what is known already, as a data set's own name, have none.
    """
    found = _docstrings(cls)
    return {name: found[name] for name in field_names(cls) if name in found}


def _docstrings(cls: type) -> dict[str, str]:
    """Return the strings that stand below the fields in a class's source."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found


DTYPES = {
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
    "float32": "float32",
    "fp32": "float32",
    "uint8": "uint8",
}
"""What a dtype is called in a flag, and what torch calls it."""


def dtype_of(name: str) -> "torch.dtype":
    """Return torch's dtype for a name of ``DTYPES``, with or without "torch." before it.

    Raises:
        KeyError: if it is none of them.
    """
    dtype: torch.dtype = getattr(import_module("torch"), DTYPES[name.removeprefix("torch.")])
    return dtype


@dataclass(frozen=True)
class LibraryType:
    """The type of a field, which its library is imported for when a value is read.

    Attributes:
        module: the library's module.
        name: the type's name there.
        words: its values, as flags have them.
    """

    module: str
    name: str
    words: tuple[str, ...]

    def word(self, value: object) -> str:
        """Return a value's word, whether or not it is a word already.

        Raises:
            ValueError: if it is none of them.
        """
        found = str(value).rpartition(".")[2]
        if found not in self.words:
            raise ValueError
        return found

    def value(self, word: str) -> Any:
        """Return the library's value for a word."""
        kind = getattr(import_module(self.module), self.name)
        return kind[word] if issubclass(kind, enum.Enum) else dtype_of(word)

    def __call__(self) -> None:
        """Do nothing; ``typing`` takes only what can be called for a type."""


class LibraryDefault:
    """A field of a library's type: its ``default_factory``, and its descriptor.

    An instance keeps the word; whoever reads the field gets the library's value. So configurations
    are made, compared with ``word_of`` and planned with where the library is not imported.

    Args:
        kind: the field's type, a ``LibraryType``.
        word: the default, as a flag has it.
    """

    def __init__(self, kind: object, word: str) -> None:
        assert isinstance(kind, LibraryType)
        self.kind = kind
        self.word = word
        self.name = ""

    def __call__(self) -> Any:
        return self.word

    def __get__(self, instance: object | None, owner: type) -> Any:
        return self.kind.value(self.word if instance is None else vars(instance)[self.name])

    def __set__(self, instance: object, value: object) -> None:
        vars(instance)[self.name] = self.kind.word(value)


def show_defaults(cls: type) -> None:
    """Make each ``LibraryDefault`` of a configuration's class the descriptor of its field."""
    for declared in dataclass_fields(cls):
        if isinstance(declared.default_factory, LibraryDefault):
            declared.default_factory.name = declared.name
            setattr(cls, declared.name, declared.default_factory)


def word_of(config: object, name: str) -> str:
    """Return the word of a field of a library's type, without importing the library."""
    return str(vars(config)[name])


def defaults(cls: type) -> dict[str, Any]:
    """Return the defaults of a configuration's fields by name; of a library's type, their words."""
    return {declared.name: _default(declared) for declared in dataclass_fields(cls)}


def _default(declared: "Field[Any]") -> object:
    if declared.default_factory is MISSING:
        return declared.default
    return declared.default_factory()


def field_names(config: type | object) -> list[str]:
    """Return the names of a configuration's fields, in the order they were declared."""
    cls: type = config if isinstance(config, type) else type(config)
    return list(type_hints(cls))


@cache
def type_hints(cls: type) -> dict[str, Any]:
    """Return the types of a configuration's fields, without their facts; not to be changed."""
    return typing.get_type_hints(cls)

"""Settings from YAML, with values kept as text; the types of the fields decide what they mean.

YAML 1.1 would read ``no`` as false, ``1e3`` as text, ``010`` as eight and a date as a date. Anchors
and aliases, which can make a small file huge, and tags, which can name Python objects, are refused.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from llama_recipes_local.errors import Problem, door, refusal, refuse
from llama_recipes_local.recipes.named_settings import Setting, at_line, flag_name
from llama_recipes_local.typed_words import Typed

_NULLS = ("null", "Null", "NULL", "~")
_DEEPEST = 4
"""Levels of lists and sections: more than settings have, and few enough to be read."""
_EXAMPLE = "write a line for each, as `lr: 2e-4`"
_QUOTE = "write the value itself; a text that begins with * or & goes in quotes"


def read_yaml(path: Path, text: str) -> Iterator[Setting | Problem]:
    """Yield the settings of a YAML file, and a problem for each entry that is not one.

    Raises:
        UsageError: if it is not YAML, or of a kind that settings do not need.
    """
    root = _parsed(path, text)
    if root is None:
        raise refusal(f"{path} has no settings", "it is empty, or has comments alone", _EXAMPLE)
    if not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a text"
        what = f"{path}, line {_line(root)}: {kind} instead of settings"
        raise refusal(what, "a file of settings has names with values", _EXAMPLE)
    yield from _settings(path, root, "")


def _parsed(path: Path, text: str) -> yaml.Node | None:
    """Return the nodes of the document; None if there is none."""
    with door(f"{path} cannot be read", "write it in YAML, a line `name: value` for each setting"):
        try:
            refuse(list(_needless(path, text)))
            return yaml.compose(text, Loader=yaml.BaseLoader)
        except yaml.reader.ReaderError as error:
            why = f"it has the character U+{error.character:04X}"
            raise refusal(f"{path} is not YAML", why, "remove it") from error
        except yaml.MarkedYAMLError as error:
            mark: Any = error.problem_mark or error.context_mark  # yaml's stubs leave it out
            why = (error.problem or str(error)).split(" (")[0]
            fix = "indent with spaces" if r"\t" in why else "correct that line, or the one before"
            line = mark.line + 1 if mark else 1
            raise refusal(f"{path}, line {line}: this is not YAML", why, fix) from error


def _needless(path: Path, text: str) -> Iterator[Problem]:
    """Find aliases, anchors, tags and what is nested too deep, before nodes are made of them."""
    events: Iterator[Any] = yaml.parse(text, Loader=yaml.BaseLoader)  # of many classes
    depth = documents = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if isinstance(event, yaml.AliasEvent):
            problem = Problem(f"an alias (*{event.anchor})", "settings are not repeated", _QUOTE)
        elif getattr(event, "anchor", None):
            problem = Problem(f"an anchor (&{event.anchor})", "settings are not repeated", _QUOTE)
        elif getattr(event, "tag", None) not in (None, "!"):
            why = "the type of a value is its flag's"
            problem = Problem(f"a tag ({event.tag})", why, "leave the word with ! out")
        elif documents > 1 or depth > _DEEPEST:
            what = "a second document" if documents > 1 else "lists or sections in each other"
            problem = Problem(what, "settings are names with values", _EXAMPLE)
        else:
            continue
        yield at_line(path, event.start_mark.line + 1, problem)
        if documents > 1 or depth > _DEEPEST:
            return


def _settings(path: Path, mapping: yaml.MappingNode, section: str) -> Iterator[Setting | Problem]:
    for key, value in mapping.value:
        line = _line(key)
        if not isinstance(key, yaml.ScalarNode):
            problem = Problem("a list or section stands for a name", "a name is a word", _EXAMPLE)
            yield at_line(path, line, problem)
            continue
        name = section + flag_name(key.value)
        if isinstance(value, yaml.MappingNode):
            if section:
                why = "a section has no sections"
                problem = Problem(f"a section in the section {section.rstrip('.')}", why, _EXAMPLE)
                yield at_line(path, line, problem)
            else:
                yield from _settings(path, value, f"{name}.")
        elif isinstance(value, yaml.SequenceNode):
            yield from _listed(path, name, value)
        else:
            yield Setting(name, _scalar(value), line)


def _listed(path: Path, name: str, value: yaml.SequenceNode) -> Iterator[Setting | Problem]:
    if all(isinstance(each, yaml.ScalarNode) for each in value.value):
        yield Setting(name, [each.value for each in value.value], _line(value))
    else:
        problem = Problem(f"{name} has a list in its list", "it takes words", f"{name}: [a, b]")
        yield at_line(path, _line(value), problem)


def _scalar(node: yaml.ScalarNode) -> Any:
    """Return a value: text; None for YAML's null; in quotes it may be empty on purpose."""
    if node.style is None:
        return None if node.value in _NULLS else Typed(node.value)
    return str(node.value)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1

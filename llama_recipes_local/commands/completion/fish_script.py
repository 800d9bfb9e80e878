"""The script for fish."""

from collections.abc import Iterator, Sequence

from llama_recipes_local.commands.completion.completed_words import Completed, Flag, Value

_SCRIPT = r"""# Completes llama-recipes-local in fish; by `llama-recipes-local completion fish`.

# Whether the words before the cursor name one of the commands given.
function __llama_recipes_local_at
    set -l words (commandline -opc)
    set -l at
    for word in $words[2..-1]
        set -l longer $at $word
        contains -- "$longer" @NAMES@; or break
        set at $longer
    end
    contains -- "$at" $argv
end

complete -c llama-recipes-local -f
@LINES@
"""


def fish_script(commands: Sequence[Completed], any_flags: Sequence[Flag]) -> str:
    """Return the script; see ``bash_script``."""
    names = " ".join(_quoted(each.name) for each in commands if each.name)
    lines = [line for each in commands for line in _command(each)]
    takers = [each.name for each in commands if each.takes_any_flag]
    lines += [_line(takers, _flag(flag)) for flag in any_flags]
    return _SCRIPT.replace("@NAMES@", names).replace("@LINES@", "\n".join(lines))


def _command(each: Completed) -> Iterator[str]:
    at = [each.name]
    for word, text in each.commands.items():
        yield _line(at, f"-a {_quoted(word)} -d {_quoted(text)}")
    if each.argument is not None:
        yield _line(at, _value(each.argument))
    for flag in each.flags:
        yield _line(at, _flag(flag))


def _line(at: Sequence[str], what: str) -> str:
    where = " ".join(["__llama_recipes_local_at", *map(_quoted, at)])
    return f"complete -c llama-recipes-local -n {_quoted(where)} {what}"


def _flag(flag: Flag) -> str:
    names = " ".join(
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in flag.names
    )
    value = "" if flag.value is None else f" -r {_value(flag.value)}"
    return f"{names}{value} -d {_quoted(flag.help)}"


def _value(value: Value) -> str:
    words = f" -a {_quoted(' '.join(value.words))}" if value.words else ""
    return ("-F" if value.is_path else "-f") + words


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

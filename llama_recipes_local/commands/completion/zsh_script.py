"""The script for zsh, a function of its completion system."""

import shlex
from collections.abc import Iterator, Sequence

from llama_recipes_local.commands.completion.completed_words import Completed, Flag, Value

_SCRIPT = r"""#compdef llama-recipes-local
# Completes llama-recipes-local in zsh; by `llama-recipes-local completion zsh`.

_llama-recipes-local_words_or_files() {
    compadd -- "$@"
    _files
}

_llama-recipes-local() {
    local at= position
    local -a any commands
    for ((position = 2; position < CURRENT; position++)); do
        case "${at:+$at }${words[position]}" in
        @NAMES@) at+=${at:+ }${words[position]} ;;
        *) break ;;
        esac
    done
    shift $((position - 2)) words # what is left is as if the program had no commands
    ((CURRENT -= position - 2))
    any=(
@ANY_FLAGS@
    )
    case $at in
@COMMANDS@
    esac
}

if [[ $funcstack[1] == _llama-recipes-local ]]; then
    _llama-recipes-local "$@"
else
    compdef _llama-recipes-local llama-recipes-local
fi
"""


def zsh_script(commands: Sequence[Completed], any_flags: Sequence[Flag]) -> str:
    """Return the script; see ``bash_script``."""
    parts = {
        "ANY_FLAGS": (f"        {word}" for flag in any_flags for word in _specs(flag)),
        "COMMANDS": (line for each in commands for line in _command(each)),
        "NAMES": [" | ".join(shlex.quote(each.name) for each in commands if each.name)],
    }
    text = _SCRIPT
    for name, lines in parts.items():
        text = text.replace(f"@{name}@", "\n".join(lines))
    return text


def _command(each: Completed) -> Iterator[str]:
    yield f"    {shlex.quote(each.name)})"
    if each.commands:
        yield "        commands=("
        for word, text in each.commands.items():
            yield f"            {shlex.quote(f'{word}:{_escaped(text)}')}"
        yield "        )"
        yield "        if [[ $words[CURRENT] != -* ]]; then"
        yield "            _describe command commands"
        yield "            return"
        yield "        fi"
    yield "        _arguments \\"
    for flag in each.flags:
        yield from (f"            {word} \\" for word in _specs(flag))
    if each.argument is not None:
        yield f"            {shlex.quote('*' + _action(each.argument))} \\"
    yield f"            {'$any' if each.takes_any_flag else ''}".rstrip()
    yield "        ;;"


def _specs(flag: Flag) -> Iterator[str]:
    """Yield a flag as ``_arguments`` has it, for each of its names."""
    for name in flag.names:
        sign = "=" if flag.value is not None and name.startswith("--") else ""
        action = _action(flag.value) if flag.value is not None else ""
        yield shlex.quote(f"{name}{sign}[{_escaped(flag.help)}]{action}")


def _action(value: Value) -> str:
    words = " ".join(value.words)
    if value.words and value.is_path:
        return f":value:{{_llama-recipes-local_words_or_files {words}}}"
    if value.words:
        return f":value:({words})"
    return ":path:_files" if value.is_path else ":value: "


def _escaped(text: str) -> str:
    for sign in "\\[]:":
        text = text.replace(sign, f"\\{sign}")
    return text
